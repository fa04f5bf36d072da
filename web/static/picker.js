// The templates to pick from, and the form of each. What was typed into one stays while another is shown.
import { stamp, write } from "./dom.js";
import { recall, retain } from "./draft.js";
import { Form } from "./form.js";

export class Picker {
  #element;
  #templates;
  #words;
  #send;
  #forms = new Map();
  #shown;

  /** element: the fieldset of the picker, before the form that the server chose. */
  constructor(element, form, templates, words, send) {
    this.#element = element;
    this.#templates = new Map(templates.map((one) => [one.name, one]));
    this.#words = words;
    this.#send = send;
    this.#shown = form;
    this.#adopt(form);
    element.addEventListener("change", ({ target }) => this.#pick(target.value));
    document.getElementById("reset").addEventListener("click", () => this.#forms.get(this.#shown.dataset.template).form.reset());
    const kept = recall("template");
    if (this.#templates.has(kept)) this.show(kept);
  }

  get barred() {
    return this.#forms.get(this.#shown.dataset.template).form.barred;
  }

  #adopt(element) {
    const template = this.#templates.get(element.dataset.template);
    const form = new Form(element, template, this.#words, (params, count, key) => this.#send(template, params, count, key));
    form.judge(template);
    const made = { element, form };
    this.#forms.set(template.name, made);
    return made;
  }

  #pick(name) {
    this.show(name);
    retain("template", name);
  }

  /** Fill the form of this template. Returns false where there is none. */
  fill(name, values) {
    if (!this.#templates.has(name)) return false;
    this.#pick(name);
    this.#forms.get(name).form.fill({ values });
    return true;
  }

  show(name) {
    const { title, description } = this.#templates.get(name);
    const blank = () => stamp(document.querySelector(`template[data-form="${name}"]`));
    const { element } = this.#forms.get(name) ?? this.#adopt(blank());
    this.#shown.replaceWith(element);
    this.#shown = element;
    this.#element.querySelector(`[value="${name}"]`).checked = true;
    write(document.getElementById("description"), description);
    element.setAttribute("aria-label", title);
  }

  /** The fleet changed: what the server says of each template now. */
  judge(templates) {
    for (const { name, runnable, why_not } of templates) {
      const known = this.#templates.get(name);
      if (known === undefined) continue;
      Object.assign(known, { runnable, why_not });
      this.#element.querySelector(`[value="${name}"]`).parentElement.toggleAttribute("data-barred", !runnable);
      this.#forms.get(name)?.form.judge(known);
    }
  }
}
