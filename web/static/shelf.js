// The jobs of the gallery, newest first, as far as they were loaded; the jobs of one submit lie in one card. Pure.
import { before, entryOf } from "./groups.js";

/** Newest first, as the API lists them; of one submit the last comes first. */
const rank = (job) => [-job.created_ms, -(job.group?.index ?? 0), job.id];

export class Shelf {
  #jobs = new Map();
  /** Ranks of #order, by id. */
  #ranks = new Map();
  /** Ids, newest first. */
  #order = [];
  /** The cards, until the order changes; and the card of each job. */
  #cards = null;
  #lies = new Map();
  /** The rank of the newest job above which others may be missing; null while none can be. */
  #doubt = null;
  /** Where the next page begins; "" = everything there is was loaded, null = nothing was yet. */
  next = null;

  get(id) {
    return this.#jobs.get(id);
  }

  has(id) {
    return this.#jobs.has(id);
  }

  clear() {
    this.#jobs.clear();
    this.#ranks.clear();
    this.#lies.clear();
    this.#order = [];
    this.#cards = this.#doubt = null;
    this.next = null;
  }

  /** Take the next page in. */
  append({ jobs, next }) {
    for (const job of jobs) this.put(job);
    this.next = next;
  }

  get size() {
    return this.#order.length;
  }

  /** The feed was lost: until `renew`, jobs may be missing above those that are here. at: -1 = below the oldest alone. */
  doubt(at = 0) {
    this.#doubt ??= this.#ranks.get(this.#order.at(at)) ?? null;
  }

  /**
   * The first page again, after the feed was lost: what lies in its span and is not in it is gone. Where it does not
   * come down to what was here, that is loaded anew after it.
   */
  renew({ jobs, next }) {
    const last = jobs.length > 0 && next !== "" ? rank(jobs.at(-1)) : null;
    if (last !== null && this.#doubt !== null && before(last, this.#doubt)) this.clear();
    this.#doubt = null;
    const kept = new Set(jobs.map((job) => job.id));
    for (const id of [...this.#order]) {
      const spanned = last === null || !before(last, this.#ranks.get(id));
      if (spanned && !kept.has(id)) this.drop(id);
    }
    for (const job of jobs) this.put(job);
    if (next === "" || this.next === null) this.next = next;
  }

  /** Whether a job that is not here belongs among those that were loaded: an older one comes with its page. */
  reaches(job) {
    const last = this.#order.at(-1);
    return this.next === "" || (last !== undefined && before(rank(job), this.#ranks.get(last)));
  }

  /** Whether it would be the newest. */
  leads(job) {
    const [first] = this.#order;
    return first === undefined || before(rank(job), this.#ranks.get(first));
  }

  put(job) {
    const known = this.#jobs.get(job.id);
    this.#jobs.set(job.id, job);
    if (known !== undefined) {
      const jobs = this.#cards === null ? [] : this.#lies.get(job.id).jobs;
      jobs[jobs.indexOf(known)] = job;
      return;
    }
    this.#cards = null;
    const mine = rank(job);
    this.#ranks.set(job.id, mine);
    let [low, high] = [0, this.#order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (before(this.#ranks.get(this.#order[middle]), mine)) low = middle + 1;
      else high = middle;
    }
    this.#order.splice(low, 0, job.id);
  }

  drop(id) {
    if (!this.#jobs.delete(id)) return;
    this.#lies.delete(id);
    this.#ranks.delete(id);
    this.#order.splice(this.#order.indexOf(id), 1);
    this.#cards = null;
  }

  /** The cards {key, jobs}: a job, or those of one submit in their own order, where the newest of them lies. */
  cards() {
    if (this.#cards !== null) return this.#cards;
    const groups = new Map();
    this.#cards = [];
    for (const id of this.#order) {
      const job = this.#jobs.get(id);
      const key = entryOf(job);
      let card = groups.get(key);
      if (card === undefined) this.#cards.push((card = { key, jobs: [] }));
      card.jobs.unshift(job);
      if (job.group) groups.set(key, card);
      this.#lies.set(id, card);
    }
    return this.#cards;
  }

  /** The card that the job lies in, or undefined. */
  card(id) {
    this.cards();
    return this.#jobs.has(id) ? this.#lies.get(id) : undefined;
  }

  /** The job `by` further in the order of the cards; null past either end. */
  beside(id, by) {
    const all = this.cards().flatMap((card) => card.jobs);
    const at = all.findIndex((job) => job.id === id);
    return at < 0 ? null : (all[at + by]?.id ?? null);
  }
}
