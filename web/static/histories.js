// What the shown workers did over the last half hour: asked of the server once for many, then kept by the page itself.
import { Refusal } from "./api.js";
import { sampleOf, Track } from "./chart.js";

/** Workers that one request asks for; the server takes no more. */
const MOST = 50;
/** Cards come into sight together: they are asked for together. */
const GATHER_MS = 60;
const AGAIN_MS = 10_000;

export class Histories {
  #tracks = new Map();
  #wanted = new Set();
  #timer = null;
  #fetch;
  #changed;
  /** How far the server's clock is ahead of ours. */
  #ahead_ms = 0;

  /** fetch(names) resolves to the API's answer, or throws; changed(name) is told when a worker's samples came. */
  constructor(fetch, changed) {
    this.#fetch = fetch;
    this.#changed = changed;
  }

  /** By the server's clock. */
  get now() {
    return Date.now() + this.#ahead_ms;
  }

  /** Keep the samples of exactly these workers. */
  watch(names) {
    const wanted = new Set(names);
    for (const name of [...this.#tracks.keys()]) if (!wanted.has(name)) this.#tracks.delete(name);
    for (const name of wanted) {
      if (this.#tracks.has(name)) continue;
      this.#tracks.set(name, new Track());
      this.#want(name);
    }
  }

  /** The page did not hear everything: ask for all of them again. */
  refresh() {
    for (const name of this.#tracks.keys()) this.#want(name);
  }

  take(worker) {
    const sample = sampleOf(worker, this.now);
    if (sample !== null) this.#tracks.get(worker.name)?.take(sample);
  }

  samples(name) {
    return this.#tracks.get(name)?.samples ?? [];
  }

  #want(name, after = GATHER_MS) {
    this.#wanted.add(name);
    this.#timer ??= setTimeout(() => this.#ask(), after);
  }

  async #ask() {
    this.#timer = null;
    const names = [...this.#wanted].filter((name) => this.#tracks.has(name)).slice(0, MOST);
    for (const name of names) this.#wanted.delete(name);
    if (names.length === 0) return;
    let answer;
    try {
      answer = await this.#fetch(names);
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      for (const name of names) this.#want(name, AGAIN_MS);
      return;
    }
    this.#ahead_ms = answer.now_ms - Date.now();
    for (const [name, samples] of Object.entries(answer.workers)) this.#came(name, samples);
    for (const name of this.#wanted) this.#want(name);
  }

  #came(name, samples) {
    const before = this.#tracks.get(name);
    if (before === undefined) return;
    const track = new Track();
    track.precede(samples);
    const newest = samples.at(-1)?.at_ms ?? 0;
    for (const sample of before.samples) if (sample.at_ms > newest) track.take(sample);
    this.#tracks.set(name, track);
    this.#changed(name);
  }
}
