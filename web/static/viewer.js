// One job, large: its picture or preview, how it was made, or what went wrong; by arrows on to the next. Stays live.
import { Refusal, details, explain, jobs, story, templates, workflowUrl } from "./api.js";
import { copy, fill, hideBroken, parts, show, write } from "./dom.js";
import { Facts, settings } from "./facts.js";
import { fileName, isOver, jobCard, pictures, sayer } from "./format.js";
import { Stage } from "./stage.js";

const TEXTS = ["badge", "title", "status", "percent", "problem", "node", "message"];

/** What the strip offers of these jobs: each picture of each, or one place for a job that has none: {id, at, file}. */
export const sheet = (jobs) =>
  jobs.flatMap((job) => {
    const files = pictures(job);
    return files.length === 0 ? [{ id: job.id, at: 0 }] : files.map((file, at) => ({ id: job.id, at, file }));
  });

/** Jobs of one submit, in their order. */
const inOrder = (members) => [...members].sort((a, b) => (a.group?.index ?? 0) - (b.group?.index ?? 0));

export class Viewer {
  #dialog;
  #part;
  #words;
  #say;
  #on;
  #facts;
  #stage;
  #id = null;
  /** Which of the job's files is shown. */
  #at = 0;
  /** The job and those submitted with it, by id, as far as they are known. */
  #members = new Map();
  /** What was fetched of the job: {form, workflow}; null before. */
  #details = null;
  /** How the job stood when its story was fetched. */
  #told = "";
  #loading = new AbortController();
  #labels = null;

  /**
   * on.find(id): [job or undefined, address of its preview or ""]. on.beside(id, by): the job next to it in the page's
   * list, or null. on.act(verb, id): cancel, retry, delete. on.closed(id): it was the last one that was looked at.
   * on.now(): the server's time.
   */
  constructor(dialog, words, on) {
    this.#dialog = dialog;
    this.#part = parts(dialog);
    this.#words = words;
    this.#say = sayer(words);
    this.#on = on;
    this.#facts = new Facts(this.#part, words);
    this.#stage = new Stage(this.#part.frame, this.#part.picture, {
      swiped: (by) => this.#step(by),
      zoomed: (percent, fits) => this.#seen(percent, fits),
    });
    hideBroken(dialog);
    dialog.addEventListener("close", () => this.#closed());
    dialog.addEventListener("click", (event) => this.#clicked(event));
    dialog.addEventListener("keydown", (event) => this.#key(event));
    setInterval(() => this.#tick(), 1_000);
  }

  /** Of the job that is open, or null. */
  get id() {
    return this.#id;
  }

  /** Open what the address names, now and whenever it changes: #job-ID. */
  follow() {
    const open = () => {
      const id = /^#job-([\w-]+)$/.exec(location.hash)?.[1];
      if (id === undefined) this.close();
      else if (id !== this.#id) this.open(id);
    };
    addEventListener("hashchange", open);
    open();
  }

  /** Open a job: what is known at once, the rest as soon as it is here. last: at its last picture. */
  async open(id, { last = false } = {}) {
    this.#loading.abort();
    this.#loading = new AbortController();
    const { signal } = this.#loading;
    const [known] = this.#on.find(id);
    this.#clear(id, known);
    if (!this.#dialog.open) this.#dialog.showModal();
    if (known !== undefined) {
      if (last) this.#at = Math.max(0, pictures(known).length - 1);
      this.draw(known);
    }
    try {
      const [job] = await Promise.all([details(id, signal), this.#labelled()]);
      this.#details = job;
      if (!this.#members.has(id)) this.draw(job);
      this.#facts.settings(settings(job.form, this.#labels ?? []));
      this.#offer();
      if (job.group) await this.#gather(job.group.id, signal);
    } catch (cause) {
      if (cause instanceof Refusal) this.#unread(explain(cause, this.#words));
      else if (cause.name !== "AbortError") throw cause;
    }
  }

  /** The names of the settings; asked for once. Without them the settings stand under their keys. */
  async #labelled() {
    this.#labels ??= await templates().then((answer) => answer.templates, () => null);
  }

  /** The others of the same submit. */
  async #gather(group, signal) {
    const found = await jobs(`group=${encodeURIComponent(group)}&limit=64`, signal);
    for (const job of found.jobs) if (!this.#members.has(job.id)) this.#members.set(job.id, job);
    this.#redraw();
  }

  /** Its details could not be had: nothing at all is known, or only the settings are missing. */
  #unread(why) {
    if (this.#members.has(this.#id)) {
      this.#facts.unread(why);
      return;
    }
    write(this.#part.title, this.#say("viewer.gone"));
    write(this.#part.note, why);
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  #closed() {
    const id = this.#id;
    this.#id = null;
    this.#loading.abort();
    if (location.hash !== "") history.replaceState(history.state, "", location.pathname + location.search);
    this.#on.closed?.(id);
  }

  #clear(id, known) {
    const part = this.#part;
    // Another job of the same submit: its siblings are known already.
    if (!this.#members.has(id) || known === undefined) this.#members.clear();
    this.#id = id;
    this.#at = 0;
    this.#details = null;
    this.#told = "";
    this.#stage.reset();
    this.#facts.clear();
    for (const one of [part.badge, part.status, part.percent, part.note, part.where]) write(one, "");
    write(part.title, this.#say("viewer.loading"));
    for (const one of [part.plight, part.bar, part.strip, part.download, part.zip, part.again]) one.hidden = true;
    for (const button of this.#dialog.querySelectorAll(".acts button")) button.hidden = true;
    show(part.picture, "", "");
    delete this.#dialog.dataset.state;
  }

  // ---- drawing

  /** Draw the job if it is the one that is open, or one of its submit. */
  draw(job) {
    if (this.#id === null) return;
    const siblings = [...this.#members.values()].some((one) => one.group && one.group.id === job.group?.id);
    if (job.id !== this.#id && !siblings) return;
    this.#members.set(job.id, job);
    this.#redraw();
  }

  #redraw() {
    const [, preview] = this.#on.find(this.#id);
    const job = this.#members.get(this.#id);
    if (job === undefined) return;
    const view = jobCard(job, this.#words);
    const part = this.#part;
    this.#dialog.dataset.state = view.state;
    for (const key of TEXTS) write(part[key], view[key]);
    write(part.advice, this.#words[`advice.${job.error?.reason}`] ?? "");
    part.plight.hidden = view.problem === "";
    write(part.traceback, job.error?.traceback ?? "");
    part.trace.hidden = part.traceback.hidden;
    fill(part.bar, view.bar, view.title);
    const file = this.#files(job, view, preview);
    this.#strip();
    this.#facts.identity(job, file);
    this.#offer();
    this.#listen(job);
  }

  /** Show the chosen file, or the preview; returns the file, if there is one. */
  #files(job, view, preview) {
    const { picture, note, download } = this.#part;
    const shown = pictures(job);
    const files = shown.length > 0 ? shown : job.outputs;
    const file = files[Math.min(this.#at, files.length - 1)];
    if (shown.length > 0) show(picture, file.url, view.title);
    else show(picture, view.bar === null ? "" : preview, view.title);
    write(note, file !== undefined && shown.length === 0 ? this.#say("viewer.file", { name: fileName(file.name) }) : "");
    download.hidden = file === undefined;
    if (file !== undefined) Object.assign(download, { href: file.url, download: file.name });
    return file;
  }

  /** All pictures of the job, or of its submit, small. */
  #strip() {
    const { strip, where, zip } = this.#part;
    const members = inOrder(this.#members.values());
    const places = sheet(members);
    const at = places.findIndex((one) => one.id === this.#id && one.at === this.#at);
    strip.hidden = places.length < 2;
    write(where, strip.hidden ? "" : this.#say("viewer.where", { number: at + 1, count: places.length }));
    while (strip.childElementCount > places.length) strip.lastElementChild.remove();
    while (strip.childElementCount < places.length) strip.append(thumb());
    for (const [index, { id, file }] of places.entries()) {
      const button = strip.children[index].firstElementChild;
      const name = this.#say("viewer.picture", { number: index + 1 });
      button.dataset.place = index;
      button.setAttribute("aria-label", name);
      button.setAttribute("aria-pressed", String(index === at));
      show(button.firstElementChild, file?.url ?? this.#on.find(id)[1], "");
    }
    zip.hidden = places.filter(({ file }) => file !== undefined).length < 2;
    zip.href = `/api/v1/jobs/zip?ids=${members.map(({ id }) => id).join(",")}`;
    for (const button of this.#dialog.querySelectorAll("[data-step]")) {
      button.hidden = this.#beyond(Number(button.dataset.step)) === null;
    }
  }

  /** What can be done with the job as it is. */
  #offer() {
    const job = this.#members.get(this.#id);
    const params = this.#details?.form?.params ?? {};
    const can = { cancel: job?.can.cancel, retry: job?.can.retry, delete: job !== undefined && isOver(job) };
    for (const [act, may] of Object.entries(can)) this.#dialog.querySelector(`.acts [data-act=${act}]`).hidden = !may;
    const { again, copy_prompt: prompt, copy_seed: seed, copy_workflow: whole } = this.#part;
    again.hidden = !this.#details?.form;
    again.href = `/?from=${encodeURIComponent(this.#id)}`;
    prompt.hidden = typeof params.prompt !== "string";
    seed.hidden = params.seed === undefined;
    whole.hidden = this.#details === null;
  }

  /** Hear what happened to the job each time it stands otherwise. */
  async #listen(job) {
    const now = `${job.id} ${job.state} ${job.attempt} ${job.worker}`;
    if (now === this.#told) return;
    this.#told = now;
    this.#tick(true);
    const { lines } = await story(job.id, this.#loading.signal).catch(() => ({ lines: [] }));
    if (this.#told !== now || lines.length === 0) return;
    this.#facts.story(lines);
    this.#tick(true);
  }

  #tick(always = false) {
    const job = this.#members.get(this.#id);
    if (job !== undefined && (always || !isOver(job))) this.#facts.clock(job, this.#on.now());
  }

  #seen(percent, fits) {
    const { lens, percent_seen: seen } = this.#part;
    lens.hidden = percent === null;
    lens.toggleAttribute("data-close", !fits);
    write(seen, percent === null ? "" : this.#say("viewer.percent", { percent }));
  }

  // ---- what a person does

  #clicked({ target }) {
    const button = target.closest("button");
    if (target === this.#dialog) this.close();
    if (button === null) return;
    const { act, step, grow, place, copy: what } = button.dataset;
    if (act === "close") this.close();
    else if (act !== undefined) this.#on.act(act, this.#id);
    else if (step !== undefined) this.#step(Number(step));
    else if (place !== undefined) this.#go(sheet(inOrder(this.#members.values()))[place]);
    else if (what !== undefined) this.#copy(button, what);
    else if (grow === "0") this.#stage.toggle();
    else if (grow !== undefined) this.#stage.grow(Number(grow));
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("pre") !== null) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!this.#stage.key(event)) {
      if (by === undefined || event.shiftKey) return;
      this.#step(by);
    }
    event.preventDefault();
  }

  /** The place `by` away: in the strip, else in the list of the page; null where it ends. */
  #beyond(by) {
    const places = sheet(inOrder(this.#members.values()));
    const at = places.findIndex((one) => one.id === this.#id && one.at === this.#at);
    if (places[at + by] !== undefined) return places[at + by];
    let id = this.#on.beside(this.#id, by);
    while (id !== null && this.#members.has(id)) id = this.#on.beside(id, by);
    return id === null ? null : { id, at: by < 0 ? null : 0 };
  }

  #step(by) {
    const to = this.#beyond(by);
    if (to !== null) this.#go(to);
  }

  /** at: null = its last picture. */
  #go({ id, at }) {
    this.#stage.reset();
    if (id === this.#id) {
      this.#at = at;
      this.#redraw();
      return;
    }
    history.replaceState(history.state, "", `#job-${id}`);
    this.open(id, { last: at === null });
  }

  /** The open job is about to be gone: on to the next one, or back. */
  leave() {
    const to = this.#beyond(1) ?? this.#beyond(-1);
    if (to === null || to.id === this.#id) this.close();
    else this.#go(to);
  }

  async #copy(button, what) {
    const text =
      what === "workflow"
        ? await fetch(workflowUrl(this.#id)).then((answer) => (answer.ok ? answer.text() : ""), () => "")
        : String(this.#details.form.params[what]);
    const done = text !== "" && (await copy(text));
    const name = button.textContent;
    button.textContent = this.#say(done ? "viewer.copied" : "viewer.copy.failed");
    setTimeout(() => (button.textContent = name), 1_500);
  }
}

function thumb() {
  const [item, button, image] = ["li", "button", "img"].map((name) => document.createElement(name));
  button.type = "button";
  button.append(image);
  item.append(button);
  return item;
}
