// A thousand workers as a table: only the rows in sight are in the document, and the space of the others above and below.
import { fill, parts, stamp } from "./dom.js";
import { facts } from "./standing.js";
import { span } from "./roster.js";

/** Rows kept above and below the window, so that scrolling and the Tab key find them there. */
const AROUND = 12;
const TEXTS = ["name", "badge", "card", "title", "rate", "failed"];

export class Table {
  #table;
  #body;
  #template;
  #words;
  #admin;
  #find;
  #rows = new Map();
  #names = [];
  #height = 0;
  #scheduled = false;

  /** find(name) gives {worker, jobs} to draw a row from. */
  constructor(table, template, words, admin, find) {
    this.#table = table;
    this.#body = table.tBodies[1];
    this.#template = template;
    this.#words = words;
    this.#admin = admin;
    this.#find = find;
    this.#body.replaceChildren();
    addEventListener("scroll", () => this.#soon(), { passive: true });
    addEventListener("resize", () => {
      this.#height = 0;
      this.#soon();
    });
  }

  /** Show these workers in this order. */
  arrange(names) {
    this.#names = names;
    this.#table.setAttribute("aria-rowcount", names.length + 1);
    this.#window();
  }

  /** Draw what changed, of what is in sight. */
  draw(changed) {
    for (const name of changed) if (this.#rows.has(name)) this.#draw(name);
  }

  #soon() {
    if (this.#scheduled || this.#table.hidden) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#window();
    });
  }

  /** Keep exactly the rows around the window in the document. */
  #window() {
    if (this.#table.hidden) return;
    if (this.#height === 0) this.#measure();
    const top = this.#table.tBodies[0].getBoundingClientRect().top;
    const count = this.#names.length;
    const [first, last] = span(count, -top / this.#height, (innerHeight - top) / this.#height, AROUND);
    const shown = this.#names.slice(first, last);
    const wanted = new Set(shown);
    const focused = document.activeElement;
    const spare = [...this.#rows.keys()].filter((name) => !wanted.has(name));
    let before = null;
    for (const [at, name] of shown.entries()) {
      const { element } = this.#rows.get(name) ?? this.#add(name, spare.pop());
      element.setAttribute("aria-rowindex", first + at + 2);
      const place = before === null ? this.#body.firstElementChild : before.nextElementSibling;
      if (place !== element) this.#body.insertBefore(element, place);
      before = element;
    }
    for (const name of spare) this.#remove(name);
    if (wanted.has(focused.closest("[data-worker]")?.dataset.worker)) focused.focus({ preventScroll: true });
    this.#space(0, first);
    this.#space(2, count - last);
  }

  /** How tall a row is, from one that is there for a moment. */
  #measure() {
    const row = stamp(this.#template);
    this.#body.append(row);
    this.#height = row.getBoundingClientRect().height || 1;
    row.remove();
  }

  #space(body, rows) {
    this.#table.tBodies[body].rows[0].cells[0].height = Math.round(rows * this.#height);
  }

  /** A row for this worker: that of `spare`, which left the window, or else a new one. */
  #add(name, spare) {
    const row = this.#rows.get(spare) ?? this.#blank();
    if (row.element.contains(document.activeElement)) document.activeElement.blur();
    this.#rows.delete(spare);
    row.element.dataset.worker = name;
    this.#rows.set(name, row);
    this.#draw(name);
    return row;
  }

  #blank() {
    const element = stamp(this.#template);
    return { element, part: parts(element) };
  }

  #remove(name) {
    this.#rows.get(name).element.remove();
    this.#rows.delete(name);
  }

  #draw(name) {
    const { worker, jobs } = this.#find(name);
    const { element, part } = this.#rows.get(name);
    const view = facts(worker, jobs, this.#words, this.#admin);
    element.dataset.standing = view.state;
    for (const key of TEXTS) if (part[key].textContent !== view[key]) part[key].textContent = view[key];
    part.badge.title = view.trouble;
    fill(part.load, view.load, view.busy);
    fill(part.share, view.share, view.memory);
  }
}
