// The few ways in which the page touches its document. Data becomes text or a property here, never markup.

/** The elements of `root` that carry data-part, by that name. */
export function parts(root) {
  return Object.fromEntries(Array.from(root.querySelectorAll("[data-part]"), (one) => [one.dataset.part, one]));
}

/** A copy of a <template>'s one element. */
export const stamp = (template) => template.content.firstElementChild.cloneNode(true);

/** Write text where it changed; an element without text leaves the layout. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}

/** Say of an element that it is `invalid`, `disabled` or the like, or say nothing. */
export function aria(element, name, is) {
  if (is) element.setAttribute(`aria-${name}`, "true");
  else element.removeAttribute(`aria-${name}`);
}

/** Give a file that is dropped on the element to `take`. */
export function onDrop(element, take) {
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files[0]);
  });
}

/** Move a bar; null hides it. */
export function fill(bar, share, label) {
  bar.hidden = share === null;
  bar.value = share ?? 0;
  bar.setAttribute("aria-label", label);
}

/**
 * Show the picture at `url`; "" shows none. The old picture stays until the new one is there, so nothing flickers.
 * A preview (blob:) is loaded at once even out of view, for its address is short-lived; and it is left out while the one
 * before it still loads, for to interrupt that would blank the picture.
 */
export function show(image, url, alt) {
  image.alt = alt;
  if (image.getAttribute("src") === url) return;
  if (url === "") {
    image.hidden = true;
    image.removeAttribute("src");
    return;
  }
  const isPreview = url.startsWith("blob:");
  if (isPreview && !image.complete) return;
  image.loading = isPreview ? "eager" : "lazy";
  // Put off, on a busy machine each would be replaced before it was ever shown.
  image.decoding = isPreview ? "sync" : "async";
  image.src = url;
  // Until a preview is there, what stands behind it; what loads lazily has to be in the layout first.
  if (isPreview && image.hidden) image.onload = () => (image.hidden = false);
  else image.hidden = false;
}

/** A picture that cannot be loaded leaves the sails behind it to be seen. `root` may hold many, now or later. */
export function hideBroken(root) {
  root.addEventListener("error", ({ target }) => target.matches("img") && (target.hidden = true), true);
  for (const image of root.querySelectorAll("img[src]")) image.hidden ||= image.complete && image.naturalWidth === 0;
}

/** Rows of a <dl>; empty values are left out. Rows that say what they said stay, with whatever is marked in them. */
export function list(dl, rows) {
  const wanted = rows.filter(([, value]) => value !== "");
  if (Array.from(dl.children, (one) => one.textContent).join("\n") === wanted.flat().join("\n")) return;
  dl.replaceChildren(
    ...wanted.flatMap(([name, value]) => {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    }),
  );
}

/** Hand a number to the stylesheet, as --name. Numbers alone: nothing that data say becomes style. */
export const measure = (element, name, number) => element.style.setProperty(`--${name}`, Number(number));

/** Put text on the clipboard; resolves to whether it is there. Plain http has only the old way of doing it. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
