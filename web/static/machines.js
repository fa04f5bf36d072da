// The cards of the workers on the fleet page: what each is, does and holds, and what its card did over half an hour.
import { busyShare, memoryShare, paths, summary } from "./chart.js";
import { aria, fill, list, parts, stamp, write } from "./dom.js";
import { facts, VERBS } from "./standing.js";
import { moment, sayer } from "./format.js";

/** The chart's own units; it is stretched to the card. */
const CHART = { width: 180, height: 40 };
const TEXTS = ["name", "badge", "card", "trouble", "busy", "memory", "heat", "title", "doing", "staged", "tally"];
/** Cards that are drawn at first, and that "show more" adds. */
const STEP = 48;

/** One card, wherever it stands: in the list, or alone in the sheet. */
export class Machine {
  #part;
  #words;
  #say;

  constructor(element, words) {
    this.element = element;
    this.#part = parts(element);
    this.#words = words;
    this.#say = sayer(words);
  }

  draw(worker, jobs, admin) {
    const part = this.#part;
    const view = facts(worker, jobs, this.#words, admin);
    this.element.dataset.worker = view.name;
    this.element.dataset.standing = view.state;
    for (const key of TEXTS) write(part[key], view[key]);
    part.simulated.hidden = !view.simulated;
    part.card.title = view.card;
    fill(part.bar, view.bar, view.title);
    if (view.job === "") part.title.removeAttribute("href");
    else part.title.href = `/#job-${view.job}`;
    chips(part.models, [...view.models, ...(view.more === "" ? [] : [{ short: view.more, name: "" }])]);
    this.#more(worker, view);
    for (const verb of VERBS) act(this.element.querySelector(`[data-act=${verb}]`), view.acts[verb]);
  }

  #more({ since_ms: since }, view) {
    const rows = [
      [this.#say("fleet.programs"), view.version],
      [this.#say("fleet.machine"), view.host],
      [this.#say("fleet.labels"), view.labels.join(", ")],
      [this.#say("fleet.since"), moment(since, Date.now(), this.#words)],
    ];
    if (isNew(this.#part.facts, rows)) list(this.#part.facts, rows);
  }

  chart(samples, now) {
    const part = this.#part;
    const frame = { ...CHART, until: now };
    const busy = paths(samples, busyShare, frame);
    part.line.setAttribute("d", busy.line);
    part.area.setAttribute("d", busy.area);
    part.filled.setAttribute("d", paths(samples, memoryShare, frame).line);
    part.chart.setAttribute("aria-label", this.#told(summary(samples, busyShare), summary(samples, memoryShare)));
  }

  #told(busy, memory) {
    if (busy === null) return this.#say("fleet.chart.none");
    const text = this.#say("fleet.chart", busy);
    return memory === null ? text : `${text} ${this.#say("fleet.chart.memory", memory)}`;
  }
}

/** A button for something that can be done, that cannot be done now (and why), or that does not fit at all. */
function act(button, why) {
  button.hidden = why === undefined;
  button.title = why ?? "";
  aria(button, "disabled", Boolean(why));
}

/** Whether `data` is other than what was last shown in the element. */
function isNew(element, data) {
  const text = JSON.stringify(data);
  const differs = element.dataset.shown !== text;
  element.dataset.shown = text;
  return differs;
}

function chips(element, all) {
  element.hidden = all.length === 0;
  if (!isNew(element, all)) return;
  element.replaceChildren(
    ...all.map(({ short, name }) => Object.assign(document.createElement("li"), { textContent: short, title: name })),
  );
}

export class Machines {
  #list;
  #template;
  #words;
  #cards = new Map();
  #names = [];
  #most = STEP;
  #more;
  #observer;
  /** Those in sight: the others are drawn when they come there. */
  #seen = new Set();

  /** more: the button that shows more; seen(names) is told which are in sight, each time that changes. */
  constructor(element, template, more, words, seen) {
    this.#list = element;
    this.#template = template;
    this.#words = words;
    this.#more = more;
    for (const one of element.children) this.#cards.set(one.dataset.worker, new Machine(one, words));
    this.#observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        this.#seen[isIntersecting ? "add" : "delete"](target.dataset.worker);
      }
      seen([...this.#seen]);
    }, { rootMargin: "50%" });
    for (const { element: one } of this.#cards.values()) this.#observer.observe(one);
    more.addEventListener("click", () => {
      const next = this.#names[this.#most];
      this.#most += STEP;
      this.arrange(this.#names);
      this.#cards.get(next).element.querySelector("summary").focus();
    });
  }

  get seen() {
    return this.#seen;
  }

  card(name) {
    return this.#cards.get(name);
  }

  /** Show these workers in this order, as many as have been asked for. */
  arrange(names) {
    this.#names = names;
    const shown = names.slice(0, this.#most);
    const focused = document.activeElement;
    const wanted = new Set(shown);
    for (const name of this.#cards.keys()) if (!wanted.has(name)) this.#remove(name);
    let before = null;
    for (const name of shown) {
      const { element } = this.#cards.get(name) ?? this.#add(name);
      const place = before === null ? this.#list.firstElementChild : before.nextElementSibling;
      if (place !== element) this.#list.insertBefore(element, place);
      before = element;
    }
    if (this.#list.contains(focused)) focused.focus({ preventScroll: true });
    write(this.#more, names.length > shown.length ? this.#words["fleet.rest"].replace("{count}", names.length - shown.length) : "");
  }

  #add(name) {
    const element = stamp(this.#template);
    element.dataset.worker = name;
    const machine = new Machine(element, this.#words);
    this.#cards.set(name, machine);
    this.#observer.observe(element);
    return machine;
  }

  #remove(name) {
    const { element } = this.#cards.get(name);
    this.#observer.unobserve(element);
    this.#seen.delete(name);
    element.remove();
    this.#cards.delete(name);
  }
}
