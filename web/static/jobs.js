// The cards of the jobs: the queue and the gallery. Draws what the store says; its buttons ask studio.js.
import { fill, hideBroken, parts, show, stamp, write } from "./dom.js";
import { before, elapsed, jobCard, place, sayer } from "./format.js";

const TEXTS = ["badge", "many", "title", "status", "attempt", "percent", "problem", "node", "message"];

export class Jobs {
  #lists;
  #template;
  #words;
  #cards = new Map();

  /** lists: {queue, gallery}; the cards that the server rendered into them are taken over. */
  constructor(lists, template, words, act) {
    this.#lists = lists;
    this.#template = template;
    this.#words = words;
    for (const list of Object.values(lists)) {
      for (const element of list.children) this.#adopt(element.dataset.job, element);
      hideBroken(list);
      list.addEventListener("click", ({ target }) => {
        const button = target.closest("button[data-act]");
        if (button !== null) act(button.dataset.act, button.closest("[data-job]").dataset.job);
      });
    }
  }

  #adopt(id, element) {
    const card = { element, parts: parts(element), rank: null, job: null };
    this.#cards.set(id, card);
    return card;
  }

  /** Draw the job as it is; `preview` is the address of its newest preview, or "". */
  draw(job, preview, now) {
    const card = this.#cards.get(job.id) ?? this.#adopt(job.id, stamp(this.#template));
    const { element, parts: part } = card;
    const view = jobCard(job, this.#words);
    const focused = element.contains(document.activeElement);
    card.job = job;
    element.dataset.job = view.id;
    element.dataset.state = view.state;
    for (const key of TEXTS) write(part[key], view[key]);
    part.title.title = view.title;
    part.plight.hidden = view.problem === "";
    fill(part.bar, view.bar, view.title);
    show(part.picture, view.picture || (view.bar === null ? "" : preview), view.title);
    part.open.href = `#job-${view.id}`;
    part.open.setAttribute("aria-label", this.#words["jobs.open"].replace("{title}", () => view.title));
    for (const [act, can] of [["cancel", view.can_cancel], ["retry", view.can_retry]]) {
      element.querySelector(`[data-act=${act}]`).hidden = !can;
    }
    write(part.took, view.took);
    this.#clock(card, now);
    this.#place(card, place(job));
    if (focused && !element.contains(document.activeElement?.closest(":not([hidden])"))) part.open.focus();
  }

  /** Draw exactly these jobs. */
  drawAll(jobs, preview, now) {
    for (const id of [...this.#cards.keys()]) if (!jobs.has(id)) this.remove(id);
    for (const job of jobs.values()) this.draw(job, preview(job), now);
  }

  /** The job whose card is `by` further in the same list, or null. */
  beside(id, by) {
    const element = this.#cards.get(id)?.element;
    const other = by < 0 ? element?.previousElementSibling : element?.nextElementSibling;
    return other?.dataset.job ?? null;
  }

  remove(id) {
    this.#cards.get(id)?.element.remove();
    this.#cards.delete(id);
  }

  /** Move the clocks of what waits and what runs. */
  tick(now) {
    for (const card of this.#cards.values()) this.#clock(card, now);
  }

  #clock({ job, parts: part }, now) {
    if (job === null || job.finished_ms !== null) return;
    const since = job.state === "queued" ? job.created_ms : job.started_ms;
    write(part.took, since === null ? "" : elapsed(now - since, sayer(this.#words)));
  }

  /** Put the card where its rank belongs, and leave it alone if it stands there. */
  #place(card, [name, rank]) {
    const list = this.#lists[name];
    const { element } = card;
    const rankOf = (one) => this.#cards.get(one.dataset.job)?.rank ?? null;
    card.rank = rank;
    const fits = (one, first) => {
      const other = one === null ? null : rankOf(one);
      return other === null || (first ? before(other, rank) : before(rank, other));
    };
    const { parentNode, previousElementSibling: left, nextElementSibling: right } = element;
    if (parentNode === list && fits(left, true) && fits(right, false)) return;
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    const next = Array.from(list.children).find((one) => one !== element && !fits(one, true)) ?? null;
    list.insertBefore(element, next);
    focused?.focus({ preventScroll: true });
  }
}
