// The cards of the gallery. Of thousands only those near the screen are in the document: a card costs nothing until it
// is looked at. The rows left out are kept room for above and below, so that the page scrolls as if all were there.
import { fill, hideBroken, measure, parts, show, stamp, write } from "./dom.js";
import { shown } from "./pane.js";
import { shot } from "./shot.js";

const TEXTS = ["badge", "many", "problem", "title", "status", "aside"];
/** A card under the keys stays so far from the ends of the screen: something may lie over them. */
const EDGE = 130;
/** Cards that come in one frame: whoever jumps far sees them come, and nothing stands still meanwhile. */
const MOST = 3;
/** After a frame that took so long one alone comes: the machine has other things to do. */
const LATE_MS = 40;
/** Pictures that begin to load in one frame. */
const EAGER = 2;
/** Whoever scrolls past more screens a second wants none of the pictures that fly past, until it was slower for so long. */
const FAST = 2;
const CALM_MS = 150;

export class Grid {
  #list;
  #template;
  #words;
  #choice;
  #preview;
  /**
   * By key: {element, part, images, jobs, urls, tiles, reach}, of what is in the document. tiles: pictures still to be
   * shown; reach: whether a tab stops there, as the tabindex that says it.
   */
  #drawn = new Map();
  #cards = [];
  /** How the grid lies: {columns, row}; null until there is a card to measure. */
  #shape = null;
  /** What was drawn last, when, and how many pixels of the grid were above the screen. */
  #range = { first: 0, last: 0 };
  #at = 0;
  #top = 0;
  /** When it was last scrolled fast. */
  #rushed = -Infinity;
  /** The card that the keys are to come to once it is there, or null. */
  #goal = null;
  #moved;
  #first = null;
  /** The card that a tab reaches. */
  #stop;
  /** Pictures that may still begin to load in this frame; those of one card begin together. */
  #eager = 0;
  /** Whether some are left for a later one. */
  #waiting = false;

  /** preview(job): the address of its newest preview, or "". moved(): the screen came to lie elsewhere. */
  constructor(list, template, words, choice, preview, moved) {
    this.#list = list;
    this.#template = template;
    this.#words = words;
    this.#choice = choice;
    this.#preview = preview;
    this.#moved = moved;
    hideBroken(list);
    for (const element of list.children) this.#adopt(element.dataset.key, element);
    this.#range.last = list.children.length;
    addEventListener("scroll", moved, { passive: true });
    let width = 0;
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width === width) return;
      width = contentRect.width;
      this.#shape = null;
      moved();
    }).observe(list);
  }

  #adopt(key, element) {
    const images = [...element.querySelectorAll("img")];
    const card = { element, part: parts(element), images, jobs: [], urls: "", tiles: null, reach: null };
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
    const { columns = 1, row = 1 } = this.#shape ?? {};
    const first = Math.max(0, Math.floor((this.#top + row / 2) / row)) * columns;
    return { card: this.#cards[first], near: this.#cards.length - this.#range.last <= 2 * columns };
  }

  /** Draw the cards that should be seen of these. */
  draw(cards) {
    this.#cards = cards;
    const [now, top] = [performance.now(), -this.#list.getBoundingClientRect().top];
    const most = now - this.#at > LATE_MS ? 1 : MOST;
    if (Math.abs(top - this.#top) / innerHeight > (FAST * (now - this.#at)) / 1_000) this.#rushed = now;
    [this.#at, this.#top] = [now, top];
    this.#eager = now - this.#rushed < CALM_MS ? 0 : EAGER;
    this.#waiting = false;
    if (cards.length > 0 && this.#drawn.size === 0) this.#put(cards.slice(0, 1), { skip: 0, above: 0, below: 0 });
    if (cards.length > 0) this.#shape ??= this.#measured();
    const { columns, row } = this.#shape ?? { columns: 1, row: 1 };
    this.#range = shown({ count: cards.length, columns, row, top, screen: innerHeight, drawn: this.#range, most });
    this.#put(cards.slice(this.#range.first, this.#range.last), this.#range);
    const { whole } = this.#range;
    if (this.#goal !== null) this.#reach(whole);
    if (this.#waiting || !whole) this.#moved();
  }

  #reach(whole) {
    const card = this.#drawn.get(this.#goal);
    card?.part.open.focus({ preventScroll: true });
    if (card !== undefined || whole) this.#goal = null;
  }

  /** How tall a row is, is known from then on: no card that comes has another one laid out. */
  #measured() {
    this.#list.removeAttribute("data-even");
    const { gridTemplateColumns, rowGap } = getComputedStyle(this.#list);
    const tall = this.#list.firstElementChild.getBoundingClientRect().height;
    if (tall === 0) return null;
    measure(this.#list, "tall", tall);
    this.#list.setAttribute("data-even", "");
    return { columns: gridTemplateColumns.split(" ").length, row: tall + parseFloat(rowGap) };
  }

  /** Have these cards in the document. What is not wanted any more becomes what is: nothing is made while one scrolls. */
  #put(cards, { skip, above, below }) {
    const wanted = new Set(cards.map((card) => card.key));
    this.#stop = wanted.has(this.#choice.at) ? this.#choice.at : cards[0]?.key;
    const held = this.#list.contains(document.activeElement) ? document.activeElement.closest("[data-key]") : null;
    const spare = [...this.#drawn].filter(([key]) => !wanted.has(key));
    for (const [key] of spare) this.#drawn.delete(key);
    let next = this.#list.firstElementChild;
    const lost = spare.some(([, { element }]) => element === held);
    for (const card of cards) {
      let drawn = this.#drawn.get(card.key);
      if (drawn === undefined) {
        drawn = spare.length > 0 ? this.#emptied(card.key, spare.pop()[1]) : this.#adopt(card.key, stamp(this.#template));
      }
      if (drawn.element === next) next = next.nextElementSibling;
      else this.#list.insertBefore(drawn.element, next);
      this.#fill(card, drawn);
    }
    for (const [, { element }] of spare) element.remove();
    this.#lead(this.#list.firstElementChild, skip);
    measure(this.#list, "above", above);
    measure(this.#list, "below", below);
    // The card under the keys was scrolled away: they stay with the grid.
    if (lost) this.#list.focus({ preventScroll: true });
  }

  /** The first card stands where it would if all those before it were there. */
  #lead(first, skip) {
    if (this.#first !== first) {
      this.#first?.removeAttribute("data-first");
      first?.setAttribute("data-first", "");
      this.#first = first;
    }
    if (first !== null) measure(first, "skip", skip);
  }

  /** A card that was another's: without its pictures, for they would be seen until the new ones are here. */
  #emptied(key, card) {
    for (const image of card.images) show(image, "", "");
    Object.assign(card, { jobs: [], urls: "", tiles: null });
    this.#drawn.set(key, card);
    return card;
  }

  /** Write what changed of a card. */
  #fill({ key, jobs }, card) {
    const { element, part } = card;
    const picked = this.#choice.picked.has(key);
    element.toggleAttribute("data-picked", picked);
    part.pick.checked = picked;
    const reach = key === this.#stop ? 0 : -1;
    if (card.reach !== reach) card.reach = part.open.tabIndex = part.pick.tabIndex = reach;
    const previews = jobs.map((job) => this.#preview(job));
    const urls = previews.join(" ");
    if (card.tiles !== null) this.#tile(card);
    if (urls === card.urls && jobs.length === card.jobs.length && jobs.every((job, at) => job === card.jobs[at])) return;
    Object.assign(card, { jobs: [...jobs], urls });
    const view = shot(jobs, this.#words);
    element.dataset.key = key;
    element.dataset.state = view.state;
    for (const text of TEXTS) write(part[text], view[text]);
    part.title.title = view.title;
    fill(part.bar, view.bar, view.title);
    part.open.href = `#job-${view.open}`;
    part.open.setAttribute("aria-label", this.#words["jobs.open"].replace("{title}", () => view.title));
    part.pick.setAttribute("aria-label", this.#words["gallery.pick"].replace("{title}", () => view.title));
    card.tiles = view.tiles.map(({ id, picture }) => picture || (previews[jobs.findIndex((job) => job.id === id)] ?? ""));
    this.#tile(card);
  }

  /** Show its pictures, in a later frame if there are too many in this one. */
  #tile(card) {
    const { part, images, tiles: urls } = card;
    if (images.some((image, at) => urls[at] && !image.hasAttribute("src"))) {
      this.#waiting ||= this.#eager <= 0;
      if (this.#eager <= 0) return;
      this.#eager -= urls.length;
    }
    card.tiles = null;
    part.mat.dataset.tiles = urls.length;
    while (images.length > urls.length) images.pop().remove();
    while (images.length < urls.length) {
      images.push(images[0].cloneNode());
      images.at(-2).after(images.at(-1));
    }
    for (const [at, url] of urls.entries()) show(images[at], url, "");
  }

  /** Bring the card into sight, and the keys to it. */
  focus(key) {
    const at = this.#cards.findIndex((card) => card.key === key);
    if (at < 0 || this.#shape === null) return;
    const { columns, row } = this.#shape;
    const top = this.#list.getBoundingClientRect().top + Math.floor(at / columns) * row;
    if (top < EDGE) scrollBy({ top: top - EDGE, behavior: "instant" });
    else if (top + row > innerHeight - EDGE) scrollBy({ top: top + row - innerHeight + EDGE, behavior: "instant" });
    this.#goal = key;
    this.draw(this.#cards);
  }
}
