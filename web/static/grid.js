// The cards of the gallery. Of thousands only those near the screen are in the document: a card costs nothing until it
// is looked at. The rows left out are kept room for above and below, so that the page scrolls as if all were there.
import { fill, hideBroken, measure, parts, show, stamp, write } from "./dom.js";
import { shown } from "./pane.js";
import { shot } from "./shot.js";

const TEXTS = ["badge", "many", "problem", "status", "aside"];

export class Grid {
  #list;
  #template;
  #words;
  #preview;
  /** By key: {element, part, jobs, urls}, of what is in the document. */
  #drawn = new Map();
  #cards = [];
  #choice;
  /** How the grid lies; null until there is a card to measure. */
  #shape = null;
  #range = { first: 0, last: 0 };

  /** preview(job): the address of its newest preview, or "". moved(): the screen came to lie elsewhere. */
  constructor(list, template, words, choice, preview, moved) {
    this.#list = list;
    this.#template = template;
    this.#words = words;
    this.#choice = choice;
    this.#preview = preview;
    hideBroken(list);
    for (const element of [...list.children]) this.#adopt(element.dataset.key, element);
    addEventListener("scroll", moved, { passive: true });
    new ResizeObserver(() => {
      this.#shape = null;
      moved();
    }).observe(list);
  }

  #adopt(key, element) {
    const card = { element, part: parts(element), jobs: [], urls: "" };
    this.#drawn.set(key, card);
    return card;
  }

  /** Columns, and rows to a screen: what moving by keys needs to know. */
  get shape() {
    const { columns = 1, row = innerHeight } = this.#shape ?? {};
    return { columns, rows: Math.max(1, Math.floor(innerHeight / row) - 1), count: this.#cards.length };
  }

  /** The card at the top of the screen, and whether the last ones are near. */
  get view() {
    const { row = 1, columns = 1 } = this.#shape ?? {};
    const hidden = Math.max(0, -this.#list.getBoundingClientRect().top);
    const near = this.#cards.length - this.#range.last <= 2 * columns;
    return { card: this.#cards[Math.floor((hidden + row / 2) / row) * columns], near };
  }

  /** Draw the cards that should be seen of these. */
  draw(cards) {
    this.#cards = cards;
    this.#shape ??= this.#measured();
    if (this.#shape === null && cards.length > 0) {
      this.#put(cards.slice(0, 1), 0, 0);
      this.#shape = this.#measured();
    }
    const { columns, row } = this.#shape ?? { columns: 1, row: 1 };
    const top = -this.#list.getBoundingClientRect().top;
    this.#range = shown({ count: cards.length, columns, row, top, screen: innerHeight });
    this.#put(cards.slice(this.#range.first, this.#range.last), this.#range.above, this.#range.below);
  }

  #measured() {
    const card = this.#list.firstElementChild;
    if (card === null) return null;
    const { gridTemplateColumns, rowGap } = getComputedStyle(this.#list);
    const row = card.getBoundingClientRect().height + parseFloat(rowGap);
    return row > 0 ? { columns: gridTemplateColumns.split(" ").length, row } : null;
  }

  #put(cards, above, below) {
    const wanted = new Set(cards.map((card) => card.key));
    const held = this.#list.contains(document.activeElement) && document.activeElement.closest("[data-key]");
    for (const [key, { element }] of this.#drawn) {
      if (wanted.has(key)) continue;
      element.remove();
      this.#drawn.delete(key);
    }
    let next = this.#list.firstElementChild;
    for (const card of cards) {
      const { element } = this.#drawn.get(card.key) ?? this.#adopt(card.key, stamp(this.#template));
      if (element === next) next = next.nextElementSibling;
      else this.#list.insertBefore(element, next);
      this.#fill(card);
    }
    measure(this.#list, "above", above);
    measure(this.#list, "below", below);
    // The card under the keys was scrolled away: they stay with the grid.
    if (held && !held.isConnected) this.#list.focus({ preventScroll: true });
  }

  /** Write what changed of a card. */
  #fill({ key, jobs }) {
    const card = this.#drawn.get(key);
    const picked = this.#choice.picked.has(key);
    const { element, part } = card;
    element.toggleAttribute("data-picked", picked);
    part.pick.checked = picked;
    part.open.tabIndex = part.pick.tabIndex = key === this.#choice.at ? 0 : -1;
    const previews = jobs.map((job) => this.#preview(job));
    const urls = previews.join(" ");
    if (urls === card.urls && jobs.length === card.jobs.length && jobs.every((job, at) => job === card.jobs[at])) return;
    Object.assign(card, { jobs, urls });
    const view = shot(jobs, this.#words);
    element.dataset.key = key;
    element.dataset.state = view.state;
    for (const text of TEXTS) write(part[text], view[text]);
    write(part.title, view.title);
    part.title.title = view.title;
    fill(part.bar, view.bar, view.title);
    part.open.href = `#job-${view.open}`;
    part.open.setAttribute("aria-label", this.#words["jobs.open"].replace("{title}", () => view.title));
    part.pick.setAttribute("aria-label", this.#words["gallery.pick"].replace("{title}", () => view.title));
    part.frame.dataset.tiles = view.tiles.length;
    for (const [at, image] of [part.one, part.two, part.three, part.four].entries()) {
      show(image, view.tiles[at] || (at < view.tiles.length ? previews[at] : ""), "");
    }
  }

  /** Bring the card into sight, and the keys to it. */
  focus(key) {
    const at = this.#cards.findIndex((card) => card.key === key);
    if (at < 0 || this.#shape === null) return;
    const { columns, row } = this.#shape;
    const top = this.#list.getBoundingClientRect().top + Math.floor(at / columns) * row;
    const edge = 96;
    if (top < edge) scrollBy({ top: top - edge, behavior: "instant" });
    else if (top + row > innerHeight - edge) scrollBy({ top: top + row - innerHeight + edge, behavior: "instant" });
    this.draw(this.#cards);
    this.#drawn.get(key)?.part.open.focus({ preventScroll: true });
  }
}
