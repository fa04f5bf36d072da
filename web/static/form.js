// The form of a template: checks what is typed as the server will, draws seeds, sends the job once.
import { Refusal, explain, freshKey } from "./api.js";
import { write } from "./dom.js";
import { sayer } from "./format.js";
import { Picture } from "./picture.js";
import { checkRows, Rows } from "./rows.js";

/** Seeds are drawn below this, so that a person can read one out. */
const SEEDS = 2 ** 32;

/** The largest seed ComfyUI takes. */
const SEED_MAX = 2n ** 64n - 1n;

/** The least and the most of a number, then what it must be a multiple of. */
function inBounds(field, value) {
  if (field.min !== null && value < field.min) return { problem: "check.min", values: { min: field.min } };
  if (field.max !== null && value > field.max) return { problem: "check.max", values: { max: field.max } };
  if (field.type !== "number" && field.step !== null && value % field.step !== 0) {
    return { problem: "check.step", values: { step: field.step } };
  }
  return { value };
}

function checkNumber(field, text) {
  const value = Number(text);
  if (text === "") return { problem: "check.required" };
  if (!Number.isFinite(value)) return { problem: "check.number" };
  if (field.type === "integer" && !Number.isSafeInteger(value)) return { problem: "check.integer" };
  return inBounds(field, value);
}

/** Seeds beyond 2^53 travel as digits: a browser's numbers end there. */
function checkSeed(field, text) {
  const max = field.max === null ? SEED_MAX : BigInt(field.max);
  if (!/^\d{1,20}$/.test(text) || BigInt(text) > max) return { problem: "check.seed", values: { max } };
  return { value: Number.isSafeInteger(Number(text)) ? Number(text) : text };
}

function checkSize(field, text) {
  const sides = /^(\d{1,6})\s*[x×]\s*(\d{1,6})$/i.exec(text);
  if (sides === null) return { problem: "check.size" };
  const [width, height] = sides.slice(1).map((side) => inBounds(field, Number(side)));
  if (width.problem !== undefined) return width;
  return height.problem === undefined ? { value: `${width.value}x${height.value}` } : height;
}

/** Lengths count characters, not UTF-16 units, as the server does. */
function checkText(field, text) {
  const [have, least] = [[...text].length, field.min ?? 0];
  if ([...text.trim()].length < least) {
    return least === 1 ? { problem: "check.required" } : { problem: "check.short", values: { min: least } };
  }
  if (field.max !== null && have > field.max) return { problem: "check.long", values: { have, max: field.max } };
  if (field.type === "choice" && !field.choices?.includes(text)) return { problem: "check.choice" };
  return { value: text };
}

/** name: of a stored picture, "" for none, null for one that is on its way. */
function checkImage(field, name) {
  if (name === null) return { problem: "check.uploading" };
  const value = name || field.default;
  return value ? { value } : { problem: "check.picture" };
}

/** What the field makes of what stands in it: {value}, or {problem, values}, a key of the page's sentences. */
export function check(field, text) {
  switch (field.type) {
    case "switch":
      return { value: text };
    case "image":
      return checkImage(field, text);
    case "roles":
    case "panels":
      return checkRows(field.type, text);
    case "integer":
    case "number":
      return checkNumber(field, text.trim());
    case "seed":
      return checkSeed(field, text.trim());
    case "size":
      return checkSize(field, text.trim());
    default:
      return checkText(field, text);
  }
}

/** A fresh seed that the field takes. `random` gives 0 to below 1. */
export const drawSeed = (field, random) => Math.floor(random() * Math.min(SEEDS, (field.max ?? SEEDS) + 1));

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

  /** send(params, key) resolves once the job is on disk, or throws a Refusal. */
  constructor(form, template, words, send) {
    this.#form = form;
    this.#template = template;
    this.#words = words;
    this.#say = sayer(words);
    this.#send = send;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.#submit();
    });
    for (const field of template.fields) this.#equip(field);
    form.addEventListener("change", ({ target }) => this.#recheck(target));
    form.addEventListener("input", ({ target }) => this.#typed(target));
    document.addEventListener("paste", (event) => this.#pasted(event));
    this.#cast();
    const apple = /Mac|iPhone|iPad/.test(navigator.platform);
    write(form.querySelector("#keys"), this.#say("create.keys", { key: apple ? "⌘" : "Ctrl" }));
  }

  /** Bring the fields to life that are more than one input. */
  #equip(field) {
    const element = this.#form.querySelector(`[data-key="${field.key}"]`);
    if (field.type === "image") {
      this.#pictures.set(field.key, new Picture(element, this.#words, (found) => this.#mark(field, found)));
    } else if (field.type === "roles" || field.type === "panels") {
      this.#rows.set(field.key, new Rows(element, field, this.#say, () => this.#cast()));
    }
  }

  /** The panels offer the characters as they are called now. */
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

  /** Whether no worker can run the template: its button is barred, and the reason stands beside it. */
  get barred() {
    return "barred" in this.#form.dataset;
  }

  /** The fleet changed: bar the form, or open it. */
  judge({ runnable, why_not: why }) {
    this.#form.toggleAttribute("data-barred", !runnable);
    this.#form.querySelector("button[type=submit]").hidden = !runnable;
    this.#tell(runnable ? "" : this.#say("create.unrunnable", { why }));
  }

  #field(element) {
    const key = element.closest("[data-key]").dataset.key;
    return this.#template.fields.find((field) => field.key === key);
  }

  /** What the focus goes to when the field is wrong. */
  #control(field) {
    if (!this.#rows.has(field.key)) return this.#form.querySelector(`#f-${field.key}`);
    const element = this.#form.querySelector(`[data-key="${field.key}"]`);
    return element.querySelector("[aria-invalid=true]") ?? element.querySelector("input, textarea");
  }

  #dice(field) {
    return this.#form.querySelector(`[data-key="${field.key}"] [data-random]`);
  }

  /** What stands in the field, as `check` takes it; of a size the chosen preset, else what is typed below them. */
  #text(field) {
    const held = this.#pictures.get(field.key) ?? this.#rows.get(field.key);
    if (held !== undefined) return held.value;
    if (field.type === "switch") return this.#control(field).checked;
    return this.#form.elements.namedItem(field.key).value || this.#control(field).value;
  }

  /** A seed typed by hand is meant to stay. */
  #typed(target) {
    const field = this.#field(target);
    if (field.type === "seed" && !target.matches("[data-random]")) this.#dice(field).checked = target.value.trim() === "";
    if (field.type === "roles") this.#cast();
    if (target.getAttribute("aria-invalid") === "true") this.#recheck(target);
  }

  #recheck(target) {
    const field = this.#field(target);
    if (field.type === "image") return;
    this.#mark(field, this.#dice(field)?.checked ? {} : check(field, this.#text(field)), target);
  }

  /** target: of a list only its row is marked, for the others may not have been filled in yet. */
  #mark(field, found, target = null) {
    const rows = this.#rows.get(field.key);
    rows?.mark(found, target);
    if (rows !== undefined && target !== null) this.#complain(field, "");
    else this.#complain(field, found.problem === undefined ? "" : this.#say(found.problem, found.values));
  }

  #complain(field, text) {
    if (!this.#rows.has(field.key)) {
      if (text === "") this.#control(field).removeAttribute("aria-invalid");
      else this.#control(field).setAttribute("aria-invalid", "true");
    }
    write(this.#form.querySelector(`#b-${field.key}`), text);
  }

  /** {params, typed}: all parameters, and what they were made of; or null after going to what is wrong. */
  #read() {
    const [params, typed, wrong] = [{}, {}, []];
    for (const field of this.#template.fields) {
      const random = this.#dice(field)?.checked === true;
      const found = random ? { value: drawSeed(field, Math.random) } : check(field, this.#text(field));
      this.#mark(field, found);
      if (found.problem !== undefined) wrong.push(field);
      params[field.key] = found.value;
      typed[field.key] = random ? null : found.value;
    }
    if (wrong.length === 0) return { params, typed: JSON.stringify(typed) };
    const first = this.#control(wrong[0]);
    const group = first.closest("details");
    if (group !== null) group.open = true;
    first.focus();
    this.#tell(this.#say("create.mend", { fields: wrong.map((field) => field.label).join(", ") }));
    return null;
  }

  #tell(text) {
    write(this.#form.querySelector("#create-problem"), text);
  }

  /** Each press is a picture; they are sent one after the other, as they were when the button was pressed. */
  #submit() {
    if (this.barred) return;
    const job = this.#read();
    if (job === null) return;
    this.#tell("");
    this.#sending = this.#sending.finally(() => this.#sendOne(job));
  }

  async #sendOne({ params, typed }) {
    const job = this.#unanswered?.typed === typed ? this.#unanswered : { params, typed, key: freshKey() };
    this.#unanswered = null;
    try {
      await this.#send(job.params, job.key);
      this.#keepSeeds(job.params);
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      if (cause.status === 0 || cause.status >= 500) this.#unanswered = job;
      this.#refused(cause);
    }
  }

  #refused(refusal) {
    const { field: key, row } = refusal.details ?? {};
    const field = this.#template.fields.find((one) => one.key === key);
    const why = refusal.message.replace(/^field \S+ \(.*?\)(, row \d+)?: /, "");
    if (field !== undefined && row > 0 && this.#rows.has(key)) this.#rows.get(key).tell(row - 1, why);
    else if (field !== undefined) this.#complain(field, why);
    this.#tell(refusal.status === 0 ? this.#say("create.lost") : explain(refusal, this.#words));
  }

  /** Show which seed was drawn: taking the dice away then keeps it. */
  #keepSeeds(params) {
    for (const field of this.#template.fields) {
      if (field.type === "seed") this.#control(field).value = params[field.key];
    }
  }
}
