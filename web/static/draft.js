// What stands in the form of a template, kept by this browser so that it is there again after a reload.

const key = (template) => `form.${template}`;

/** What was kept, or null. What cannot be read counts as nothing. */
export function kept(template) {
  try {
    const found = JSON.parse(localStorage.getItem(key(template)));
    return typeof found?.values === "object" && Array.isArray(found.locked) ? found : null;
  } catch {
    return null;
  }
}

/** Keep it, as far as the browser has room. draft: {values, locked: the seeds that are to stay, count}, or null. */
export function keep(template, draft) {
  try {
    if (draft === null) localStorage.removeItem(key(template));
    else localStorage.setItem(key(template), JSON.stringify(draft));
  } catch {
    // Full, or closed by the browser's settings: the form works all the same.
  }
}
