// The cards of the studio: the queue and the pictures; a group of jobs has one card together. Draws what the store says;
// its buttons ask studio.js.
import { fill, hideBroken, parts, show, stamp, write } from "./dom.js";
import { about, elapsed, jobCard, left, moments, sayer } from "./format.js";
import { before, entryOf, groupCard, groupLeft, members, place } from "./groups.js";

const TEXTS = ["badge", "many", "title", "status", "attempt", "percent", "problem", "node", "message", "where"];
const GROUP_TEXTS = ["badge", "title", "status", "percent"];
const ACTS = ["cancel", "retry", "use"];

const entryAt = (element) => element.dataset.group ?? element.dataset.job;

export class Jobs {
  #lists;
  #templates;
  #words;
  #say;
  #preview;
  #hindrance;
  /** By entry: a job's id, or its group's. */
  #cards = new Map();
  /** Job id -> entry, for jobs that leave. */
  #entries = new Map();
  /** Job id -> its place in the queue and when it is thought to begin, as far as the fleet tells. */
  #outlook = new Map();

  /**
   * lists: {queue, gallery}, with the cards that the server rendered. templates: {job, group}. preview(job): the address
   * of its newest preview, or "". hindrance(jobs): why nothing goes on with them, or null. act(verb, jobs): what a button asks for.
   */
  constructor(lists, templates, words, preview, hindrance, act) {
    this.#lists = lists;
    this.#templates = templates;
    this.#words = words;
    this.#say = sayer(words);
    this.#preview = preview;
    this.#hindrance = hindrance;
    for (const list of Object.values(lists)) {
      for (const element of list.children) this.#adopt(entryAt(element), element);
      hideBroken(list);
      list.addEventListener("click", ({ target }) => {
        const button = target.closest("button[data-act]");
        const jobs = button === null ? null : this.#cards.get(entryAt(button.closest(".job")))?.jobs ?? null;
        if (jobs !== null) act(button.dataset.act, jobs);
      });
    }
  }

  #adopt(entry, element) {
    const card = { element, parts: parts(element), rank: null, jobs: null };
    this.#cards.set(entry, card);
    return card;
  }

  foresee(outlook) {
    this.#outlook = new Map(outlook.map((one) => [one.id, one]));
  }

  /** Draw the entries of these jobs; ids = null: exactly the jobs there are. */
  draw(jobs, ids, now) {
    const entries = members(jobs.values());
    if (ids === null) this.#retry();
    const due = ids === null ? [...this.#cards.keys(), ...entries.keys()] : [...ids].map((id) => this.#entry(jobs, id));
    for (const entry of new Set(due)) {
      const found = entries.get(entry);
      if (found !== undefined) this.#drawEntry(entry, found, now);
      else if (entry !== undefined) this.#remove(entry);
    }
  }

  /** What could not be loaded while the fleet was away. */
  #retry() {
    for (const list of Object.values(this.#lists)) {
      for (const image of list.querySelectorAll("img[hidden][src]")) image.removeAttribute("src");
    }
  }

  #entry(jobs, id) {
    const job = jobs.get(id);
    if (job === undefined) return this.#entries.get(id);
    this.#entries.set(id, entryOf(job));
    return entryOf(job);
  }

  #drawEntry(entry, jobs, now) {
    const grouped = Boolean(jobs[0].group);
    const card = this.#cards.get(entry) ?? this.#adopt(entry, stamp(this.#templates[grouped ? "group" : "job"]));
    const { element, parts: part } = card;
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    for (const job of jobs) this.#entries.set(job.id, entry);
    card.jobs = jobs;
    const view = grouped ? this.#drawGroup(card, entry) : this.#drawJob(card, jobs[0]);
    element.dataset.state = view.state;
    part.title.title = view.title;
    fill(part.bar, view.bar, view.title);
    for (const act of ACTS) element.querySelector(`[data-act=${act}]`).hidden = !view[`can_${act}`];
    write(part.took, view.took);
    this.#clock(card, now);
    this.#place(card, place(jobs));
    if (focused !== null && focused.closest("[hidden]")) element.querySelector("a[href]")?.focus();
  }

  #drawJob({ element, parts: part }, job) {
    const view = jobCard(job, this.#words, this.#outlook.get(job.id)?.place ?? null);
    element.dataset.job = view.id;
    for (const key of TEXTS) write(part[key], view[key]);
    part.plight.hidden = view.problem === "";
    show(part.picture, view.picture || (view.bar === null ? "" : this.#preview(job)), view.title);
    part.open.href = `#job-${view.id}`;
    part.open.setAttribute("aria-label", this.#say("jobs.open", { title: view.title }));
    return view;
  }

  /** The job that stands `by` further in the same list, those of a group one after the other; or null. */
  beside(id, by) {
    const list = this.#cards.get(this.#entries.get(id))?.element.parentElement;
    const ids = Array.from(list?.children ?? [], (one) => this.#cards.get(entryAt(one))?.jobs ?? []).flat().map((job) => job.id);
    return ids[ids.indexOf(id) + by] ?? null;
  }

  #drawGroup({ element, parts: part, jobs }, entry) {
    const view = groupCard(jobs, this.#words);
    const known = new Map(jobs.map((job) => [job.id, job]));
    element.dataset.group = entry;
    part.tiles.dataset.columns = view.columns;
    for (const key of GROUP_TEXTS) write(part[key], view[key]);
    while (part.tiles.childElementCount < view.tiles.length) part.tiles.append(part.tiles.firstElementChild.cloneNode(true));
    for (const [at, tile] of view.tiles.entries()) {
      const item = part.tiles.children[at];
      const [link, image] = [item.firstElementChild, item.querySelector("img")];
      const job = known.get(tile.id);
      item.dataset.state = tile.state;
      if (job === undefined) link.removeAttribute("href");
      else link.href = `#job-${tile.id}`;
      if (link.getAttribute("aria-label") !== tile.label) link.setAttribute("aria-label", tile.label);
      show(image, tile.picture || (job?.state === "running" ? this.#preview(job) : ""), "");
    }
    return view;
  }

  #remove(entry) {
    const card = this.#cards.get(entry);
    card?.element.remove();
    for (const job of card?.jobs ?? []) this.#entries.delete(job.id);
    this.#cards.delete(entry);
  }

  /** Move the clocks of what waits and what runs. */
  tick(now) {
    for (const card of this.#cards.values()) this.#clock(card, now);
  }

  /** Why nothing goes on; else how long it still takes or waits, where that is known; else how long it took so far. */
  #clock({ jobs, parts: part }, now) {
    if (jobs === null || jobs.every((job) => job.finished_ms !== null)) return;
    write(part.took, this.#hindrance(jobs) ?? this.#waits(jobs, now) ?? this.#lasts(jobs, now));
  }

  /** For what nothing was begun of; else null. */
  #waits(jobs, now) {
    if (!jobs.every((job) => job.state === "queued")) return null;
    const starts = jobs.map((job) => this.#outlook.get(job.id)?.start_ms ?? null).filter((ms) => ms !== null);
    if (starts.length === 0) return elapsed(now - jobs[0].created_ms, this.#say);
    return this.#say("eta.starts", { about: about(Math.min(...starts) - now, this.#say) });
  }

  #lasts(jobs, now) {
    const rest = jobs[0].group ? groupLeft(jobs, now) : left(jobs[0], now);
    if (rest !== null) return this.#say("eta.left", { about: about(rest, this.#say) });
    const begun = moments(jobs, "started_ms");
    return begun.length === 0 ? "" : elapsed(now - Math.min(...begun), this.#say);
  }

  /** Put the card where its rank belongs, and leave it alone if it stands there. */
  #place(card, [name, rank]) {
    const list = this.#lists[name];
    const { element } = card;
    const rankOf = (one) => this.#cards.get(entryAt(one))?.rank ?? null;
    card.rank = rank;
    const fits = (one, first) => {
      const other = one === null ? null : rankOf(one);
      return other === null || (first ? before(other, rank) : before(rank, other));
    };
    const { parentNode, previousElementSibling: previous, nextElementSibling: following } = element;
    if (parentNode === list && fits(previous, true) && fits(following, false)) return;
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    const next = Array.from(list.children).find((one) => one !== element && !fits(one, true)) ?? null;
    list.insertBefore(element, next);
    focused?.focus({ preventScroll: true });
  }
}
