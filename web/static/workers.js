// The strip of workers: name, state, and what each is doing.
import { fill, parts, stamp, write } from "./dom.js";
import { workerCard } from "./format.js";

const TEXTS = ["name", "badge", "title", "doing", "next", "percent", "card", "memory"];

/** A studio shows so many; all of them are on the fleet's own page. */
const MOST = 12;

export class Workers {
  #list;
  #template;
  #words;
  #cards = new Map();

  constructor(list, template, words) {
    this.#list = list;
    this.#template = template;
    this.#words = words;
    for (const element of list.children) this.#cards.set(element.dataset.worker, element);
  }

  #draw(worker, jobs) {
    const element = this.#cards.get(worker.name) ?? this.#add(worker.name);
    const part = parts(element);
    const view = workerCard(worker, jobs, this.#words);
    element.dataset.state = view.state;
    for (const key of TEXTS) write(part[key], view[key]);
    part.card.title = view.card;
    fill(part.bar, view.bar, view.title);
    if (view.job === "") part.title.removeAttribute("href");
    else part.title.href = `#job-${view.job}`;
  }

  /** Draw the first of these workers, by name, and no others. Returns how many are left out. */
  drawAll(workers, jobs) {
    const shown = [...workers.keys()].sort().slice(0, MOST);
    for (const [name, element] of this.#cards) {
      if (shown.includes(name)) continue;
      element.remove();
      this.#cards.delete(name);
    }
    for (const name of shown) this.#draw(workers.get(name), jobs);
    return workers.size - shown.length;
  }

  #add(name) {
    const element = stamp(this.#template);
    element.dataset.worker = name;
    const next = Array.from(this.#list.children).find((one) => one.dataset.worker > name) ?? null;
    this.#list.insertBefore(element, next);
    this.#cards.set(name, element);
    return element;
  }
}
