// The strip of workers: name, card, memory, and what each is doing.
import { fill, parts, stamp, write } from "./dom.js";
import { workerCard } from "./format.js";

const TEXTS = ["name", "badge", "card", "memory", "load", "title", "doing", "next"];

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

  draw(worker, jobs) {
    const element = this.#cards.get(worker.name) ?? this.#add(worker.name);
    const part = parts(element);
    const view = workerCard(worker, jobs, this.#words);
    element.dataset.state = view.state;
    for (const key of TEXTS) write(part[key], view[key]);
    part.simulated.hidden = !view.simulated;
    part.card.title = view.card;
    fill(part.share, view.share, view.memory);
    if (view.job === "") part.title.removeAttribute("href");
    else part.title.href = `#job-${view.job}`;
  }

  /** Draw exactly these workers. */
  drawAll(workers, jobs) {
    for (const name of [...this.#cards.keys()]) if (!workers.has(name)) this.remove(name);
    for (const worker of workers.values()) this.draw(worker, jobs);
  }

  remove(name) {
    this.#cards.get(name)?.remove();
    this.#cards.delete(name);
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
