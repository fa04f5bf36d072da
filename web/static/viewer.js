// One job, large: its picture or preview, its settings, its timings, or what went wrong. Stays live while it is open.
import { Refusal, details, explain } from "./api.js";
import { fill, hideBroken, list, parts, show, write } from "./dom.js";
import { duration, fileSize, jobCard, pictures, sayer } from "./format.js";

const TEXTS = ["badge", "title", "status", "percent", "problem", "node", "message"];

/** The rows of the timings: what took how long, as far as it is known. */
export function timings(job, say) {
  const rows = [];
  const atWorker = job.timings === null ? 0 : job.timings.staging_ms + job.timings.waiting_ms;
  if (job.started_ms !== null) rows.push(["queue", Math.max(0, job.started_ms - job.created_ms - atWorker)]);
  for (const part of ["staging", "waiting", "running", "finishing"]) {
    if (job.timings !== null) rows.push([part, job.timings[`${part}_ms`]]);
  }
  if (job.finished_ms !== null) rows.push(["total", Math.max(0, job.finished_ms - job.created_ms)]);
  return rows.map(([part, ms]) => [say(`time.${part}`), duration(ms, say)]);
}

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

export class Viewer {
  #dialog;
  #part;
  #say;
  #words;
  #templates;
  #id = null;
  /** Which of the job's files is shown. */
  #at = 0;
  #job = null;
  #preview = "";
  #loading = new AbortController();

  constructor(dialog, words, templates, act, closed) {
    this.#dialog = dialog;
    this.#part = parts(dialog);
    this.#say = sayer(words);
    this.#words = words;
    this.#templates = templates;
    hideBroken(dialog);
    dialog.addEventListener("close", () => {
      this.#id = null;
      this.#loading.abort();
      closed();
    });
    dialog.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (target === dialog || button?.dataset.act === "close") dialog.close();
      else if (button?.dataset.at !== undefined) this.#choose(Number(button.dataset.at));
      else if (button?.dataset.act !== undefined) act(button.dataset.act, this.#id);
    });
  }

  /** Of the job that is open, or null. */
  get id() {
    return this.#id;
  }

  /** Open the job of this id: what is known at once, what has to be fetched as soon as it is here. */
  async open(id, known, preview) {
    this.#loading.abort();
    this.#loading = new AbortController();
    this.#id = id;
    this.#clear();
    if (!this.#dialog.open) this.#dialog.showModal();
    if (known !== undefined) this.draw(known, preview);
    else write(this.#part.status, this.#say("viewer.loading"));
    try {
      const job = await details(id, this.#loading.signal);
      if (this.#job === null) this.draw(job, preview);
      list(this.#part.params, settings(job.form, this.#templates));
      this.#part.settings.hidden = this.#part.params.childElementCount === 0;
    } catch (cause) {
      if (!(cause instanceof Refusal)) return;
      this.#unread(explain(cause, this.#words));
    }
  }

  /** Its details could not be had: nothing at all is known, or only the settings are missing. */
  #unread(why) {
    const { status, note, settings: section, params } = this.#part;
    if (this.#job === null) {
      write(status, "");
      write(note, this.#say("viewer.gone", { why }));
      return;
    }
    list(params, [[this.#say("viewer.unread"), why]]);
    section.hidden = false;
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  #clear() {
    const part = this.#part;
    this.#at = 0;
    this.#job = null;
    for (const one of [part.badge, part.title, part.status, part.percent, part.note]) write(one, "");
    for (const one of [part.plight, part.bar, part.strip, part.settings, part.clock, part.download]) one.hidden = true;
    for (const one of [part.strip, part.params, part.identity]) one.replaceChildren();
    for (const button of this.#dialog.querySelectorAll(".acts button")) button.hidden = true;
    show(part.picture, "", "");
  }

  #choose(at) {
    this.#at = at;
    this.draw(this.#job, this.#preview);
  }

  /** Draw the job if it is the one that is open. */
  draw(job, preview) {
    if (job.id !== this.#id) return;
    this.#job = job;
    this.#preview = preview;
    const view = jobCard(job, this.#words);
    const part = this.#part;
    this.#dialog.dataset.state = view.state;
    for (const key of TEXTS) write(part[key], view[key]);
    part.plight.hidden = view.problem === "";
    write(part.traceback, job.error?.traceback ?? "");
    part.trace.hidden = part.traceback.hidden;
    fill(part.bar, view.bar, view.title);
    for (const [act, can] of [["cancel", view.can_cancel], ["retry", view.can_retry]]) {
      this.#dialog.querySelector(`[data-act=${act}]`).hidden = !can;
    }
    const file = this.#files(view);
    this.#facts(job, file);
  }

  /** Show the chosen file, or the preview; returns the file, if there is one. */
  #files(view) {
    const { picture, note, download, strip } = this.#part;
    const shown = pictures(this.#job);
    const files = shown.length > 0 ? shown : this.#job.outputs;
    const file = files[Math.min(this.#at, files.length - 1)];
    if (shown.length > 0) show(picture, file.url, view.title);
    else show(picture, view.bar === null ? "" : this.#preview, view.title);
    write(note, file !== undefined && shown.length === 0 ? this.#say("viewer.file", { name: file.name }) : "");
    download.hidden = file === undefined;
    if (file !== undefined) Object.assign(download, { href: file.url, download: file.name });
    strip.hidden = shown.length < 2;
    if (strip.childElementCount !== shown.length) strip.replaceChildren(...shown.map((one, at) => this.#thumb(one, at)));
    for (const [at, item] of [...strip.children].entries()) {
      item.firstElementChild.setAttribute("aria-pressed", String(at === this.#at));
    }
    return file;
  }

  #thumb(file, at) {
    const [item, button, image] = ["li", "button", "img"].map((name) => document.createElement(name));
    button.type = "button";
    button.dataset.at = at;
    show(image, file.url, this.#say("viewer.picture", { number: at + 1 }));
    button.append(image);
    item.append(button);
    return item;
  }

  #facts(job, file) {
    const times = timings(job, this.#say);
    list(this.#part.timings, times);
    this.#part.clock.hidden = times.length === 0;
    list(this.#part.identity, [
      [this.#say("viewer.worker"), job.worker ?? ""],
      [this.#say("viewer.try"), job.attempt > 0 ? String(job.attempt) : ""],
      [this.#say("viewer.size"), file === undefined ? "" : fileSize(file.size_bytes)],
      [this.#say("viewer.id"), job.id],
    ]);
  }
}
