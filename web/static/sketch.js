// A template in the making: which inputs of a workflow become fields, in which order, and with which words.
// Pure: no document, no request.

/** What people change in most workflows comes into the form at once: by input, in this order. */
const USUAL = ["text", "prompt", "image", "width", "height", "batch_size", "steps", "cfg", "seed", "noise_seed"];
const FEW = 12;

/** Of these, what most people leave as it is. */
const FOLDED = ["steps", "cfg", "seed", "noise_seed"];

/** A name for a template's folder, made of its title. */
export function nameOf(title) {
  const plain = title.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return plain.replace(/^-+|-+$/g, "").slice(0, 64);
}

/**
 * What is wrong with a text that should be a workflow in API format, found before it is sent: {workflow}, or {problem,
 * values}, a key of the page's sentences.
 */
export function readWorkflow(text) {
  if (text.trim() === "") return { problem: "templates.bad.empty" };
  let workflow;
  try {
    workflow = JSON.parse(text);
  } catch (cause) {
    return { problem: "templates.bad.json", values: { why: cause.message } };
  }
  const isObject = typeof workflow === "object" && workflow !== null && !Array.isArray(workflow);
  if (isObject && Array.isArray(workflow.nodes)) return { problem: "templates.bad.editor" };
  const nodes = isObject ? Object.values(workflow) : [];
  if (nodes.length === 0 || !nodes.every((node) => typeof node?.class_type === "string")) {
    return { problem: "templates.bad.other" };
  }
  return { workflow };
}

export class Sketch {
  /** offered: what POST /templates/draft answered; advanced: the group of what most people leave as it is. */
  constructor(workflow, { fields, results, why_not: why = "" }, advanced) {
    this.workflow = workflow;
    /** Why no worker could run it, "" when one could. */
    this.why_not = why;
    this.offered = new Map(fields.map((field) => [field.key, field]));
    this.results = results;
    this.result = results[0]?.node ?? "";
    this.title = "";
    this.description = "";
    /** Typed by a person, else made of the title. */
    this.ownName = null;
    /** {key, label, group} of each field of the form, in its order. */
    this.chosen = this.#usual().map((field) => ({
      ...this.#entry(field),
      group: FOLDED.includes(field.input) ? advanced : "",
    }));
  }

  get name() {
    return this.ownName ?? nameOf(this.title);
  }

  has(key) {
    return this.chosen.some((one) => one.key === key);
  }

  add(key) {
    if (!this.has(key)) this.chosen.push(this.#entry(this.offered.get(key)));
  }

  remove(key) {
    this.chosen = this.chosen.filter((one) => one.key !== key);
  }

  /** One place up (-1) or down (1); at an end it stays. */
  move(key, by) {
    const at = this.chosen.findIndex((one) => one.key === key);
    const to = at + by;
    if (to < 0 || to >= this.chosen.length) return;
    [this.chosen[at], this.chosen[to]] = [this.chosen[to], this.chosen[at]];
  }

  change(key, changes) {
    Object.assign(this.chosen.find((one) => one.key === key), changes);
  }

  /** The fields as the form will have them. */
  get fields() {
    return this.chosen.map((one) => ({ ...this.offered.get(one.key), ...one }));
  }

  /** The offered inputs by the node that has them: [{node, title, class_type, fields}], in the order of the workflow. */
  nodes() {
    const found = new Map();
    for (const field of this.offered.values()) {
      const { node, title, class_type } = field;
      if (!found.has(node)) found.set(node, { node, title, class_type, fields: [] });
      found.get(node).fields.push(field);
    }
    return [...found.values()];
  }

  /** What keeps it from being saved: {where: [problem, values]}; taken: names that are used. */
  problems(taken) {
    const found = {};
    if (this.title.trim() === "") found.title = ["check.required", {}];
    const made = this.ownName === null && found.title !== undefined;
    if (!made && !/^[a-z0-9][a-z0-9_-]{0,63}$/.test(this.name)) found.name = ["templates.bad.name", {}];
    else if (taken.includes(this.name)) found.name = ["templates.bad.taken", { name: this.name }];
    if (this.chosen.length === 0) found.fields = ["templates.bad.fields", {}];
    else if (this.chosen.some(({ label }) => label.trim() === "")) found.fields = ["templates.bad.label", {}];
    return found;
  }

  /** The body of POST /templates. */
  get body() {
    const fields = this.chosen.map(({ key, label, group }) => ({ key, label: label.trim(), group: group.trim() }));
    const { name, workflow, result } = this;
    return { name, title: this.title.trim(), description: this.description.trim(), workflow, fields, result };
  }

  /** The usual inputs, each kind in the order of the workflow. */
  #usual() {
    const rank = ({ input }) => USUAL.indexOf(input);
    const usual = [...this.offered.values()].filter((field) => rank(field) >= 0);
    return usual.sort((a, b) => rank(a) - rank(b)).slice(0, FEW);
  }

  /** Inputs that are called alike are told apart by their nodes, if their author gave those names. */
  #entry({ key, label, title, class_type: type }) {
    const alike = [...this.offered.values()].filter((other) => other.label === label).length > 1;
    return { key, label: alike && title !== type ? title : label, group: "" };
  }
}
