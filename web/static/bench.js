// The bench on which a template is made: a workflow is taken, inputs are picked, and the form grows beside them.
import * as api from "./api.js";
import { aria, onDrop, parts, stamp, write } from "./dom.js";
import { fileName, fileSize, sayer } from "./format.js";
import { preview } from "./preview.js";
import { readWorkflow, Sketch } from "./sketch.js";

const FILE_BYTES = 8 << 20;
const TEXTS = ["title", "name", "description"];

/** A node by its author's name for it, if there is one, its class and its id. */
const called = ({ node, title, class_type: type }) => [...new Set([title, type, node])].join(" · ");

export class Bench {
  #element;
  #part;
  #words;
  #say;
  #on;
  #sketch = null;
  /** By the key of their field. */
  #picks = new Map();

  /** on.taken() gives the names that are used, on.saved(template) and on.closed() tell how it ended. */
  constructor(element, words, on) {
    this.#element = element;
    this.#part = parts(element);
    this.#words = words;
    this.#say = sayer(words);
    this.#on = on;
    this.#listen();
  }

  open() {
    document.getElementById("bench-title").focus();
  }

  #listen() {
    const { file, source, making, picked, nodes, filter } = this.#part;
    const acts = { close: () => this.#on.closed(), read: () => this.#read(this.#part.paste.value, this.#say("templates.pasted")), again: () => this.#again() };
    this.#element.addEventListener("click", ({ target }) => acts[target.closest("[data-do]")?.dataset.do]?.());
    file.addEventListener("change", () => {
      if (file.files.length > 0) this.#open(file.files[0]);
      file.value = "";
    });
    onDrop(source, (dropped) => this.#open(dropped));
    making.addEventListener("input", ({ target }) => this.#typed(target));
    making.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    picked.addEventListener("click", ({ target }) => this.#pressed(target.closest("button")));
    nodes.addEventListener("change", ({ target }) => this.#ticked(target.value, target.checked));
    filter.addEventListener("input", () => this.#filter());
  }

  // ---- a workflow is taken

  async #open(file) {
    if (file.size > FILE_BYTES) {
      this.#complain(this.#say("templates.bad.size", { name: fileName(file.name), size: fileSize(file.size) }));
      return;
    }
    this.#read(await file.text(), fileName(file.name));
  }

  async #read(text, name) {
    this.#complain("");
    const { workflow, problem, values } = readWorkflow(text);
    if (problem !== undefined) {
      this.#complain(this.#say(problem, values));
      return;
    }
    try {
      this.#take(new Sketch(workflow, await api.draftTemplate(workflow), this.#say("templates.advanced")), name);
    } catch (cause) {
      if (!(cause instanceof api.Refusal)) throw cause;
      this.#complain(api.explain(cause, this.#words));
    }
  }

  #complain(text) {
    write(this.#part.problem, text);
    aria(this.#part.paste, "invalid", text !== "");
  }

  #take(sketch, name) {
    const part = this.#part;
    this.#sketch = sketch;
    part.source.hidden = true;
    part.making.hidden = false;
    const counts = { name, nodes: Object.keys(sketch.workflow).length, inputs: sketch.offered.size };
    write(part.taken, this.#say("templates.source.read.done", counts));
    write(part.warning, sketch.why_not === "" ? "" : this.#say("create.unrunnable", { why: sketch.why_not }));
    part.result.replaceChildren(...sketch.results.map((one) => new Option(called(one), one.node)));
    for (const key of TEXTS) part[key].value = "";
    part.filter.value = "";
    this.#picks.clear();
    part.picked.replaceChildren();
    part.nodes.replaceChildren(...sketch.nodes().map((node) => this.#node(node)));
    this.#draw();
    part.title.focus();
  }

  #again() {
    this.#sketch = null;
    this.#part.making.hidden = true;
    this.#part.source.hidden = false;
    this.#part.paste.focus();
  }

  #node(node) {
    const element = stamp(document.getElementById("node"));
    element.querySelector("legend").textContent = called(node);
    for (const field of node.fields) {
      const row = stamp(document.getElementById("input"));
      const part = parts(row);
      row.querySelector("input").value = field.key;
      write(part.name, field.input);
      write(part.about, this.#about(field));
      element.append(row);
    }
    return element;
  }

  /** Type, bounds and current value of an input, in one line. */
  #about({ type, min, max, value }) {
    const bounds = min !== null && max !== null && ["integer", "number", "size"].includes(type) ? `${min}–${max}` : "";
    const text = String(value ?? "");
    const now = text === "" ? "" : this.#say("templates.now", { value: text.length > 60 ? `${text.slice(0, 60)}…` : text });
    return [this.#say(`templates.type.${type}`), bounds, now].filter(Boolean).join(" · ");
  }

  #filter() {
    const words = this.#part.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const node of this.#part.nodes.children) {
      const title = node.querySelector("legend").textContent;
      for (const row of node.querySelectorAll(".input")) {
        const text = `${title} ${row.textContent}`.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      node.hidden = [...node.querySelectorAll(".input")].every((row) => row.hidden);
    }
  }

  // ---- the form grows

  #ticked(key, on) {
    if (on) this.#sketch.add(key);
    else this.#sketch.remove(key);
    this.#draw();
  }

  #pressed(button) {
    const key = button?.closest("[data-key]").dataset.key;
    if (key === undefined) return;
    if (button.dataset.leave !== undefined) {
      const next = button.closest(".pick").nextElementSibling ?? button.closest(".pick").previousElementSibling;
      this.#sketch.remove(key);
      this.#draw();
      (next?.querySelector("input") ?? this.#part.filter).focus();
      return;
    }
    this.#sketch.move(key, Number(button.dataset.move));
    this.#draw();
    (button.disabled ? button.closest(".pick").querySelector("[data-move]:not(:disabled)") : button)?.focus();
  }

  #typed(target) {
    const sketch = this.#sketch;
    const key = target.closest("[data-key]")?.dataset.key;
    const part = this.#part;
    if (key !== undefined) {
      if (target.type === "checkbox") sketch.change(key, { group: target.checked ? this.#say("templates.advanced") : "" });
      else sketch.change(key, { label: target.value });
    } else if (target === part.name) {
      sketch.ownName = target.value === "" ? null : target.value;
    } else if (target === part.title || target === part.description || target === part.result) {
      sketch[target.dataset.part] = target.value;
    } else {
      return;
    }
    if (target === part.title && sketch.ownName === null) part.name.value = sketch.name;
    this.#mark(target.getAttribute("aria-invalid") === "true" ? sketch.problems(this.#on.taken()) : null, target.dataset.part);
    this.#preview();
  }

  #draw() {
    const { chosen, offered } = this.#sketch;
    const part = this.#part;
    for (const [key, element] of this.#picks) {
      if (this.#sketch.has(key)) continue;
      element.remove();
      this.#picks.delete(key);
    }
    const rows = chosen.map((one) => this.#picks.get(one.key) ?? this.#pick(offered.get(one.key)));
    part.picked.append(...rows);
    for (const [at, element] of rows.entries()) {
      const { label, group } = chosen[at];
      const one = parts(element);
      if (one.label.value !== label) one.label.value = label;
      one.fold.checked = group !== "";
      const [up, down] = element.querySelectorAll("[data-move]");
      up.disabled = at === 0;
      down.disabled = at === rows.length - 1;
      for (const [button, key] of [[up, "up"], [down, "down"], [element.querySelector("[data-leave]"), "remove"]]) {
        button.setAttribute("aria-label", this.#say(`templates.${key}`, { label }));
        button.title = button.getAttribute("aria-label");
      }
    }
    part.nothing.hidden = rows.length > 0;
    for (const box of part.nodes.querySelectorAll("input")) box.checked = this.#sketch.has(box.value);
    this.#preview();
  }

  #pick(field) {
    const element = stamp(document.getElementById("pick"));
    const part = parts(element);
    element.dataset.key = field.key;
    part.label.setAttribute("aria-label", this.#say("templates.label", { input: field.input }));
    write(part.about, `${field.class_type} · ${field.input} · ${this.#about(field)}`);
    this.#picks.set(field.key, element);
    return element;
  }

  #preview() {
    preview(this.#part.preview, this.#sketch.fields);
  }

  // ---- and is saved

  /** Show what is wrong, all of it or only at one place; null shows that nothing is. */
  #mark(problems, only = null) {
    for (const key of TEXTS) {
      if (only !== null && only !== key) continue;
      const found = problems?.[key];
      write(this.#part[`${key}-problem`], found === undefined ? "" : this.#say(...found));
      aria(this.#part[key], "invalid", found !== undefined);
    }
    if (only === null) write(this.#part["fields-problem"], problems?.fields === undefined ? "" : this.#say(...problems.fields));
  }

  async #save() {
    const sketch = this.#sketch;
    const problems = sketch.problems(this.#on.taken());
    this.#mark(problems);
    const [first] = Object.keys(problems);
    write(this.#part.refused, first === undefined ? "" : this.#say("templates.bad.mend"));
    if (first !== undefined) {
      (this.#part[first] ?? this.#part.filter).focus();
      return;
    }
    try {
      const { body } = sketch;
      await api.saveTemplate(body);
      this.#again();
      this.#part.paste.value = "";
      this.#on.saved(body);
    } catch (cause) {
      if (!(cause instanceof api.Refusal)) throw cause;
      write(this.#part.refused, cause.status === 0 ? this.#say("templates.lost") : api.explain(cause, this.#words));
    }
  }
}
