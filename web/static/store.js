// What the page knows of the fleet: a snapshot, then deltas with serials that count by one.
// Pure state: no document, no socket, no clock. It says what changed; others draw it and ask for what is missing.

import { isOver } from "./format.js";

/** Of jobs that ended, so many are kept: a page left open for a week must not grow without bound. */
const KEEP_ENDED = 300;

export class Store {
  constructor() {
    this.jobs = new Map();
    this.workers = new Map();
    this.stats = null;
    /** The first of the waiting jobs in the order they will be served: {id, place, start_ms}. */
    this.outlook = [];
    /** Whether the web server reaches the broker. */
    this.connected = false;
    /** Serial of the last message taken; null = a snapshot is awaited and deltas mean nothing. */
    this.serial = null;
  }

  /** Start again from the fleet's own word. */
  load({ jobs, workers, stats, connected, outlook, serial = null }) {
    this.jobs = new Map(jobs.map((job) => [job.id, job]));
    this.workers = new Map(workers.map((worker) => [worker.name, worker]));
    this.stats = stats;
    this.outlook = outlook ?? [];
    this.connected = connected;
    this.serial = serial;
  }

  /** A new connection, or a gap: everything until the next snapshot is void. */
  await() {
    this.serial = null;
  }

  /**
   * Take a message in. Returns what changed: {all}, {job: id}, {worker: name}, {stats}, {outlook}, {fleet}, {gap} when a message
   * was lost and a snapshot must be asked for, or {} for nothing to draw.
   */
  apply(message) {
    if (message.type === "snapshot") {
      this.load(message);
      return { all: true };
    }
    if (message.serial === undefined || this.serial === null) return {};
    if (message.type !== "skip" && message.serial !== this.serial + 1) {
      this.await();
      return { gap: true };
    }
    this.serial = message.serial;
    return this.#take(message);
  }

  #take(message) {
    switch (message.type) {
      case "job":
        return this.#job(message.job);
      case "job_gone":
        this.jobs.delete(message.id);
        return { dropped: message.id };
      case "progress":
        return this.#progress(message);
      case "worker":
        this.workers.set(message.worker.name, message.worker);
        return { worker: message.worker.name };
      case "worker_gone":
        this.workers.delete(message.name);
        return { worker: message.name };
      case "stats":
        this.stats = message.stats;
        return { stats: true };
      case "outlook":
        this.outlook = message.queue;
        return { outlook: true };
      case "fleet":
        this.connected = message.connected;
        return { fleet: true };
      default:
        return {};
    }
  }

  #job(job) {
    this.jobs.set(job.id, job);
    const ended = [...this.jobs.values()].filter(isOver);
    if (ended.length > KEEP_ENDED) {
      const oldest = ended.reduce((a, b) => (a.finished_ms <= b.finished_ms ? a : b));
      this.jobs.delete(oldest.id);
      return { job: job.id, dropped: oldest.id };
    }
    return { job: job.id };
  }

  /** Progress of an attempt that is over, or of a job that ended, is late and says nothing. */
  #progress({ id, attempt, progress }) {
    const job = this.jobs.get(id);
    if (job === undefined || job.attempt !== attempt || isOver(job)) return {};
    this.jobs.set(id, { ...job, progress });
    return { job: id };
  }

  /**
   * A job as a request's answer told it. The feed is newer for jobs it has told of, so only an unknown job is taken,
   * or any job while the feed is silent. Returns as `apply` does.
   */
  offer(job) {
    if (this.jobs.has(job.id) && this.serial !== null) return {};
    return this.#job(job);
  }

  /** Whether a preview of this attempt still shows the job as it is. */
  wants(id, attempt) {
    const job = this.jobs.get(id);
    return job !== undefined && job.attempt === attempt && !isOver(job);
  }
}
