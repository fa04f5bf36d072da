// The form above the gallery: what is typed and picked there becomes the filters, after a pause while typing.
import { KEYS } from "./query.js";

const PAUSE_MS = 250;

export class Filters {
  #form;
  #told;
  #waiting = null;

  /** told(filters, typing) hears each change; typing: while words are being written, so that they are one step back. */
  constructor(form, told) {
    this.#form = form;
    this.#told = told;
    // Chinese is composed: until a word is, its letters are not what is sought.
    form.addEventListener("input", ({ target, isComposing }) => target.name === "q" && !isComposing && this.#later());
    form.addEventListener("compositionend", ({ target }) => target.name === "q" && this.#later());
    form.addEventListener("change", ({ target }) => target.name !== "q" && this.#now(false));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#now(true);
    });
  }

  get value() {
    const given = new FormData(this.#form);
    return Object.fromEntries(KEYS.map((key) => [key, String(given.get(key) ?? "").trim()]));
  }

  /** Show these filters; what is not among the choices becomes one. */
  set value(filters) {
    clearTimeout(this.#waiting);
    for (const key of KEYS) {
      const input = this.#form.elements.namedItem(key);
      if (input === null) continue;
      const offered = input.options === undefined || [...input.options].some(({ value }) => value === filters[key]);
      if (!offered) input.add(new Option(filters[key], filters[key]));
      if (input.value !== filters[key]) input.value = filters[key];
    }
  }

  #later() {
    clearTimeout(this.#waiting);
    this.#waiting = setTimeout(() => this.#now(true), PAUSE_MS);
  }

  #now(typing) {
    clearTimeout(this.#waiting);
    this.#told(this.value, typing);
  }
}
