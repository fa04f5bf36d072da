// Fields that are lists: the characters of a story, and its panels with the characters that are in each.
import { aria, parts, stamp, write } from "./dom.js";

/** The texts of a row: name, most characters, signs that StoryDiffusion keeps for itself, whether it may be empty. */
const TEXTS = {
  roles: [
    ["name", 40, "[]#", false],
    ["description", 1_000, "[]#", false],
  ],
  panels: [
    ["text", 1_000, "#", false],
    ["caption", 200, "[]#", true],
  ],
};

const MOST = { roles: 2, panels: 24 };

/** What is wrong with a text of a row, or {}. */
function checkLine(text, [part, most, signs, empty]) {
  const [have, sign] = [[...text].length, [...text].find((one) => signs.includes(one))];
  if (have === 0 && !empty) return { part, problem: "check.required" };
  if (have > most) return { part, problem: "check.long", values: { have, max: most } };
  return sign === undefined ? {} : { part, problem: "check.signs", values: { sign } };
}

/** {value}, or {problem, rows}: for each row {} or what is wrong, and with which part of it. */
export function checkRows(kind, rows) {
  const value = rows.map((row) => ({ ...row }));
  const names = new Set();
  const found = value.map((row) => {
    for (const rule of TEXTS[kind]) row[rule[0]] = row[rule[0]].split(/\s+/).filter(Boolean).join(" ");
    const wrong = TEXTS[kind].map((rule) => checkLine(row[rule[0]], rule)).find(({ problem }) => problem !== undefined);
    if (wrong !== undefined) return wrong;
    if (kind === "roles" && names.has(row.name)) return { part: "name", problem: "check.twice", values: { name: row.name } };
    names.add(row.name);
    return {};
  });
  return found.some(({ problem }) => problem !== undefined) ? { problem: "check.rows", rows: found } : { value };
}

export class Rows {
  #field;
  #list;
  #template;
  #add;
  #say;
  #changed;
  #people = [];
  #made = 0;

  /** changed() is called after a row came or went. */
  constructor(element, field, say, changed) {
    this.#field = field;
    this.#list = element.querySelector("[data-rows]");
    this.#template = element.querySelector("template");
    this.#add = element.querySelector("[data-add]");
    this.#say = say;
    this.#changed = changed;
    this.fill(field.default);
    this.#add.addEventListener("click", () => {
      this.#make({}).querySelector("input, textarea").focus();
      this.#changed();
    });
    this.#list.addEventListener("click", ({ target }) => {
      const button = target.closest("[data-remove]");
      if (button === null) return;
      button.closest(".row").remove();
      this.#bound();
      this.#add.focus();
      this.#changed();
    });
  }

  /** Hold these rows, and as many empty ones as there must be. */
  fill(rows) {
    this.#list.replaceChildren();
    for (const row of rows ?? []) this.#make(row);
    while (this.#list.childElementCount < (this.#field.min ?? 1)) this.#make({});
  }

  #make(row) {
    const element = stamp(this.#template);
    const part = parts(element);
    element.dataset.row = ++this.#made;
    part.problem.id = `b-${this.#field.key}-${this.#made}`;
    for (const [name] of TEXTS[this.#field.type]) {
      part[name].value = row[name] ?? "";
      part[name].setAttribute("aria-describedby", part.problem.id);
    }
    this.#list.append(element);
    if (this.#field.type === "panels") this.#cast(element, row.roles ?? []);
    this.#bound();
    return element;
  }

  /** Rows can neither come above the most nor go below the least. */
  #bound() {
    const { min, max, type } = this.#field;
    const count = this.#list.childElementCount;
    this.#add.hidden = count >= (max ?? MOST[type]);
    for (const button of this.#list.querySelectorAll("[data-remove]")) button.hidden = count <= (min ?? 1);
  }

  /** The characters: what each row is called, by a number that stays when the name changes. */
  get people() {
    return Array.from(this.#list.children, (one) => ({ id: one.dataset.row, name: parts(one).name.value.trim() }));
  }

  /** These are the characters that a panel can show. */
  cast(people) {
    const first = this.#people.length === 0;
    this.#people = people;
    for (const [at, one] of [...this.#list.children].entries()) {
      this.#cast(one, first ? this.#field.default?.[at]?.roles ?? [] : []);
    }
  }

  /** A box for each character; `shown` are ticked at once, the others stay as they are. */
  #cast(element, shown) {
    const { who } = parts(element);
    const boxes = new Map(Array.from(who.querySelectorAll("input"), (box) => [box.value, box]));
    who.replaceChildren(
      ...this.#people.map(({ id, name }) => {
        const box = boxes.get(id) ?? Object.assign(document.createElement("input"), { type: "checkbox", value: id });
        if (shown.includes(name)) box.checked = true;
        const label = box.closest("label") ?? document.createElement("label");
        const text = label.lastElementChild?.matches("span") ? label.lastElementChild : document.createElement("span");
        text.textContent = name || this.#say("rows.nameless");
        label.className = "chip";
        label.replaceChildren(box, text);
        return label;
      }),
    );
  }

  get value() {
    return Array.from(this.#list.children, (one) => {
      const part = parts(one);
      const row = Object.fromEntries(TEXTS[this.#field.type].map(([name]) => [name, part[name].value]));
      if (this.#field.type === "roles") return row;
      const shown = Array.from(part.who.querySelectorAll(":checked"), (box) => box.value);
      return { roles: this.#people.filter(({ id }) => shown.includes(id)).map(({ name }) => name), ...row };
    });
  }

  /** Show what `checkRows` found; with `target` only in the row where that stands. */
  mark({ rows = [] }, target = null) {
    for (const [at, one] of [...this.#list.children].entries()) {
      if (target !== null && !one.contains(target)) continue;
      const { part, problem, values } = rows[at] ?? {};
      this.tell(at, problem === undefined ? "" : this.#say(problem, values), part);
    }
  }

  /** Show this beside a row; `part` names the text that it is about. */
  tell(at, text, part) {
    const element = this.#list.children[at];
    if (element === undefined) return;
    write(parts(element).problem, text);
    for (const [name] of TEXTS[this.#field.type]) aria(parts(element)[name], "invalid", name === part);
  }
}
