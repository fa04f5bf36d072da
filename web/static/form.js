// The form of a template: checks what is typed as the server will, draws seeds, sends the job once, keeps what was typed.
import { Refusal, explain, freshKey } from "./api.js";
import { check, drawSeed } from "./check.js";
import { aria, write } from "./dom.js";
import { keep, kept } from "./draft.js";
import { sayer } from "./format.js";
import { Picture } from "./picture.js";
import { Rows } from "./rows.js";

const KEEP_MS = 400;
const MOST_JOBS = 64;

export class Form {
  #form;
  #template;
  #words;
  #say;
  #send;
  /** By the key of their field. */
  #pictures = new Map();
  #rows = new Map();
  /** What was sent and perhaps taken, for all that the server could say: sent again as it was, it is the same job. */
  #unanswered = null;
  #sending = Promise.resolve();
  #keeping = null;

  /** send(params, count, key) resolves once the jobs are on disk, or throws a Refusal. */
  constructor(form, template, words, send) {
    this.#form = form;
    this.#template = template;
    this.#words = words;
    this.#say = sayer(words);
    this.#send = send;
    for (const field of template.fields) this.#equip(field);
    this.#cast();
    this.#listen();
    const apple = /Mac|iPhone|iPad/.test(navigator.platform);
    write(form.querySelector("#keys"), this.#say("create.keys", { key: apple ? "⌘" : "Ctrl" }));
    const draft = kept(template.name);
    if (draft !== null) this.fill(draft);
  }

  #listen() {
    const form = this.#form;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("change", ({ target }) => {
      this.#recheck(target);
      this.#keepSoon();
    });
    form.addEventListener("input", ({ target }) => {
      this.#typed(target);
      this.#keepSoon();
    });
    form.addEventListener("click", ({ target }) => {
      const step = target.closest("[data-step]")?.dataset.step;
      if (step !== undefined) this.#setCount(this.#count + Number(step));
      this.#keepSoon();
    });
    document.addEventListener("paste", (event) => this.#pasted(event));
    addEventListener("pagehide", () => this.#keepNow());
  }

  #equip(field) {
    const element = this.#form.querySelector(`[data-key="${field.key}"]`);
    const told = (found) => {
      this.#mark(field, found);
      this.#keepSoon();
    };
    if (field.type === "image") this.#pictures.set(field.key, new Picture(element, this.#words, told));
    if (field.type === "roles" || field.type === "panels") {
      this.#rows.set(field.key, new Rows(element, field, this.#say, () => this.#cast()));
    }
  }

  #cast() {
    const of = (type) => this.#template.fields.filter((field) => field.type === type).map(({ key }) => this.#rows.get(key));
    const people = of("roles").flatMap((rows) => rows.people);
    for (const rows of of("panels")) rows.cast(people);
  }

  #pasted(event) {
    const [picture] = this.#pictures.values();
    const file = event.clipboardData?.files[0];
    if (picture === undefined || file === undefined || !this.#form.isConnected) return;
    event.preventDefault();
    picture.take(file);
  }

  /** Whether no worker can run the template. */
  get barred() {
    return "barred" in this.#form.dataset;
  }

  judge({ runnable, why_not: why }) {
    this.#form.toggleAttribute("data-barred", !runnable);
    this.#form.querySelector(".go").hidden = !runnable;
    this.#tell(runnable ? "" : this.#say("create.unrunnable", { why }));
  }

  /** Put in the values of a job or a draft; what a field cannot hold is left as it is. */
  fill({ values, locked = null, count = 1 }) {
    const given = this.#template.fields.filter(({ key }) => key in values);
    for (const field of given) if (field.type !== "panels") this.#put(field, values[field.key]);
    this.#cast();
    for (const field of given) if (field.type === "panels") this.#put(field, values[field.key]);
    for (const field of this.#template.fields) {
      const lock = this.#lock(field);
      if (lock !== null) lock.checked = locked === null ? field.key in values : locked.includes(field.key);
      this.#mark(field, {});
    }
    this.#setCount(count);
    this.#tell("");
    this.#keepSoon();
  }

  #put(field, value) {
    const control = this.#control(field);
    if (this.#pictures.has(field.key)) this.#pictures.get(field.key).put(value);
    else if (this.#rows.has(field.key)) this.#rows.get(field.key).fill(value);
    else if (field.type === "switch") control.checked = value === true;
    else if (field.type === "size") this.#putSize(field, String(value));
    else if (control.tagName !== "SELECT" || [...control.options].some((one) => one.value === String(value))) {
      control.value = String(value ?? "");
    }
  }

  #putSize(field, text) {
    const presets = [...this.#form.querySelectorAll(`[name="${field.key}"]`)];
    (presets.find((one) => one.value === text) ?? presets.at(-1)).checked = true;
    this.#control(field).value = text;
  }

  reset() {
    const defaults = this.#template.fields.map((field) => [field.key, field.type === "seed" ? "" : field.default]);
    this.fill({ values: Object.fromEntries(defaults), locked: [] });
  }

  get #count() {
    return Math.min(MOST_JOBS, Math.max(1, Math.floor(Number(this.#form.querySelector("#count").value)) || 1));
  }

  #setCount(count) {
    this.#form.querySelector("#count").value = count;
    this.#form.querySelector("#count").value = this.#count;
  }

  #keepSoon() {
    clearTimeout(this.#keeping);
    this.#keeping = setTimeout(() => this.#keepNow(), KEEP_MS);
  }

  #keepNow() {
    if (this.#keeping === null) return;
    clearTimeout(this.#keeping);
    this.#keeping = null;
    const { fields, name } = this.#template;
    const values = fields.map((field) => [field.key, this.#text(field)]).filter(([, value]) => value !== null);
    const locked = fields.filter((field) => this.#lock(field)?.checked).map(({ key }) => key);
    keep(name, { values: Object.fromEntries(values), locked, count: this.#count });
  }

  #field(element) {
    const key = element.closest("[data-key]")?.dataset.key;
    return this.#template.fields.find((field) => field.key === key);
  }

  #control(field) {
    if (!this.#rows.has(field.key)) return this.#form.querySelector(`#f-${field.key}`);
    const element = this.#form.querySelector(`[data-key="${field.key}"]`);
    return element.querySelector("[aria-invalid=true]") ?? element.querySelector("input, textarea");
  }

  /** What keeps a seed from being drawn anew; null for other fields. */
  #lock(field) {
    return this.#form.querySelector(`[data-key="${field.key}"] [data-lock]`);
  }

  #draws(field) {
    return this.#lock(field)?.checked === false;
  }

  /** What stands in the field, as `check` takes it; of a size the chosen preset, else what is typed below them. */
  #text(field) {
    const held = this.#pictures.get(field.key) ?? this.#rows.get(field.key);
    if (held !== undefined) return held.value;
    if (field.type === "switch") return this.#control(field).checked;
    if (field.type === "size") return this.#form.elements.namedItem(field.key).value || this.#control(field).value;
    return this.#control(field).value;
  }

  /** A seed typed by hand is meant to stay. */
  #typed(target) {
    const field = this.#field(target);
    if (field === undefined) return;
    if (field.type === "seed" && !target.matches("[data-lock]")) this.#lock(field).checked = target.value.trim() !== "";
    if (field.type === "roles") this.#cast();
    if (target.getAttribute("aria-invalid") === "true") this.#recheck(target);
  }

  #recheck(target) {
    const field = this.#field(target);
    if (field === undefined) this.#setCount(this.#count);
    else if (field.type !== "image") this.#mark(field, this.#draws(field) ? {} : check(field, this.#text(field)), target);
  }

  /** target: of a list only its row is marked, for the others may not have been filled in yet. */
  #mark(field, found, target = null) {
    const rows = this.#rows.get(field.key);
    rows?.mark(found, target);
    if (rows !== undefined && target !== null) this.#complain(field, "");
    else this.#complain(field, found.problem === undefined ? "" : this.#say(found.problem, found.values));
  }

  #complain(field, text) {
    if (!this.#rows.has(field.key)) aria(this.#control(field), "invalid", text !== "");
    write(this.#form.querySelector(`#b-${field.key}`), text);
  }

  #tell(text) {
    write(this.#form.querySelector("#create-problem"), text);
  }

  /** {params, typed}: all parameters, and what they were made of; or null after going to what is wrong. */
  #read() {
    const [params, typed, wrong] = [{}, {}, []];
    for (const field of this.#template.fields) {
      const random = this.#draws(field);
      const found = random ? { value: drawSeed(field, Math.random) } : check(field, this.#text(field));
      this.#mark(field, found);
      if (found.problem !== undefined) wrong.push(field);
      params[field.key] = found.value;
      typed[field.key] = random ? null : found.value;
    }
    if (wrong.length === 0) return { params, count: this.#count, typed: JSON.stringify([typed, this.#count]) };
    const first = this.#control(wrong[0]);
    const group = first.closest("details");
    if (group !== null) group.open = true;
    first.focus();
    this.#tell(this.#say("create.mend", { fields: wrong.map((field) => field.label).join(", ") }));
    return null;
  }

  /** Each press is sent after the one before it, as the form was when the button was pressed. */
  #submit() {
    if (this.barred) return;
    const job = this.#read();
    if (job === null) return;
    this.#tell("");
    this.#sending = this.#sending.finally(() => this.#sendOne(job));
  }

  async #sendOne({ params, count, typed }) {
    const job = this.#unanswered?.typed === typed ? this.#unanswered : { params, count, typed, key: freshKey() };
    this.#unanswered = null;
    const button = this.#form.querySelector(".main");
    aria(button, "busy", true);
    try {
      await this.#send(job.params, job.count, job.key);
      this.#showSeeds(job.params);
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      if (cause.status === 0 || cause.status >= 500) this.#unanswered = job;
      this.#refused(cause);
    } finally {
      aria(button, "busy", false);
    }
  }

  #refused(refusal) {
    const { field: key, row, problem, values } = refusal.details;
    const field = this.#template.fields.find((one) => one.key === key);
    const said = refusal.message.replace(/^field \S+ \(.*?\)(, row \d+)?: /, "");
    const why = problem ? this.#say(`check.${problem}`, values) : said;
    if (field !== undefined && row > 0 && this.#rows.has(key)) this.#rows.get(key).tell(row - 1, why);
    else if (field !== undefined) this.#complain(field, why);
    if (refusal.status === 0) this.#tell(this.#say("create.lost"));
    else this.#tell(field ? this.#say("create.mend", { fields: field.label }) : explain(refusal, this.#words));
  }

  /** Show which seed was drawn: locking it then keeps it. */
  #showSeeds(params) {
    for (const field of this.#template.fields) {
      if (field.type === "seed") this.#control(field).value = params[field.key];
    }
    this.#keepSoon();
  }
}
