// Beside the picture of the viewer: how it was made, where its time went, and what happened to it.
import { list } from "./dom.js";
import { duration, fileSize, moment, sayer, tries } from "./format.js";
import { candidates, tale } from "./story.js";
import { bar, stretches } from "./timeline.js";

/** The rows of the settings: each parameter under its field's label, in the form's order, then what no field names. */
export function settings(form, templates) {
  const given = form?.params ?? {};
  const fields = templates.find((one) => one.name === form?.template)?.fields ?? [];
  const labels = new Map(fields.map((field) => [field.key, field.label]));
  const named = [...labels.keys()].filter((key) => key in given);
  const others = Object.keys(given).filter((key) => !labels.has(key));
  const line = ({ name, description, roles, text, caption }) =>
    name !== undefined
      ? `[${name}] ${description}`
      : `${roles.map((one) => `[${one}] `).join("")}${text}${caption ? ` #${caption}` : ""}`;
  const rows = (value) => Array.isArray(value) && value.every((row) => Array.isArray(row?.roles) || row?.description);
  const text = (value) => {
    if (rows(value)) return value.map(line).join("\n");
    return typeof value === "string" ? value : JSON.stringify(value);
  };
  return [...named, ...others].map((key) => [labels.get(key) ?? key, text(given[key])]);
}

/** How long each part took, each part once, in the order in which they came: [part, ms]. */
export function totals(found) {
  const sums = new Map();
  for (const { part, from_ms: from, to_ms: to } of found) sums.set(part, (sums.get(part) ?? 0) + to - from);
  return [...sums];
}

const make = (name, text = "") => Object.assign(document.createElement(name), { textContent: text });

export class Facts {
  #part;
  #words;
  #say;
  #lines = [];

  constructor(part, words) {
    this.#part = part;
    this.#words = words;
    this.#say = sayer(words);
  }

  clear() {
    const { settings: section, clock, story, params, identity, lines } = this.#part;
    for (const one of [section, clock, story]) one.hidden = true;
    for (const one of [params, identity, lines]) one.replaceChildren();
    this.#lines = [];
  }

  settings(rows) {
    list(this.#part.params, rows);
    this.#part.settings.hidden = rows.length === 0;
  }

  identity(job, file) {
    const say = this.#say;
    list(this.#part.identity, [
      [say("viewer.submitted"), moment(job.created_ms, Date.now(), this.#words)],
      [say("viewer.template"), job.template],
      [say("viewer.labels"), job.labels.join(", ")],
      [say("viewer.worker"), job.worker ?? ""],
      [say("viewer.try"), job.attempt > 0 ? String(tries(job)) : ""],
      [say("viewer.size"), file === undefined ? "" : fileSize(file.size_bytes)],
      [say("viewer.id"), job.id],
    ]);
  }

  /** Where the job's time went, up to `now`. */
  clock(job, now) {
    const found = stretches(job, this.#lines, now);
    this.#part.clock.hidden = found.length === 0;
    this.#part.timeline.replaceChildren(
      ...bar(found).map(({ part, at, width }) => {
        const block = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        for (const [name, value] of Object.entries({ x: at, width, height: 1, "data-span": part })) block.setAttribute(name, value);
        return block;
      }),
    );
    const total = found.reduce((sum, { from_ms: from, to_ms: to }) => sum + to - from, 0);
    const rows = [...totals(found), ["total", total]].map(([part, ms]) => {
      const term = make("dt", this.#say(`time.${part}`));
      term.dataset.span = part;
      return [term, make("dd", duration(ms, this.#say))];
    });
    this.#part.timings.replaceChildren(...rows.flat());
  }

  /** What happened, line by line. */
  story(lines) {
    this.#lines = lines;
    this.#part.story.hidden = lines.length === 0;
    const from = lines[0]?.at_ms ?? 0;
    this.#part.lines.replaceChildren(
      ...tale(lines, this.#say).map(({ at_ms: at, text, aside, decision }, index) => {
        const item = make("li");
        const when = make("time", index === 0 ? moment(at, Date.now(), this.#words) : `+${duration(Math.max(0, at - from), this.#say)}`);
        when.dateTime = new Date(at).toISOString();
        when.title = new Date(at).toLocaleString(this.#words["app.lang"]);
        item.append(when, make("p", text));
        if (aside !== "") item.append(Object.assign(make("p", aside), { className: "aside" }));
        if (decision !== null) item.append(...this.#decision(decision));
        return item;
      }),
    );
  }

  #decision(decision) {
    const why = make("p", decision.words);
    why.className = "aside";
    if (decision.candidates.length < 2) return [why];
    const [details, table, head, body] = ["details", "table", "thead", "tbody"].map((name) => make(name));
    const row = (cells, kind) => {
      const made = make("tr");
      made.append(...cells.map((text) => make(kind, text)));
      return made;
    };
    head.append(row(["worker", "wait", "load", "run", "finish"].map((key) => this.#say(`weighed.${key}`)), "th"));
    for (const { chosen, cells, missing } of candidates(decision, this.#say)) {
      const line = row(cells, "td");
      line.toggleAttribute("data-chosen", chosen);
      body.append(line);
      if (missing === "") continue;
      const note = row([this.#say("weighed.missing", { models: missing })], "td");
      note.firstElementChild.colSpan = cells.length;
      note.className = "aside";
      body.append(note);
    }
    table.append(head, body);
    details.append(make("summary", this.#say("weighed.title")), table);
    return [why, details];
  }

  /** Say that the settings could not be had. */
  unread(why) {
    this.settings([[this.#say("viewer.unread"), why]]);
  }
}
