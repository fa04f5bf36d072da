// A job's life as stretches of time: what it waited for, and where. Pure: from the job and its story's lines.
import { isOver } from "./format.js";

/** Stretches of an attempt by the worker's own clock, in their order. */
const STEPS = ["staging", "waiting", "loading", "running", "finishing"];

/** A stretch is drawn at least so wide, of 100, or it could not be seen. */
const LEAST = 0.8;

/**
 * The stretches {part, from_ms, to_ms, worker}, one after the other from the submission to the end, or to `now`. parts:
 * queue, backoff (queued again), lost (an attempt that came to nothing), moved (one that another worker was given
 * instead), then those of the attempt that counts.
 */
export function stretches(job, lines, now) {
  const end = job.finished_ms ?? Math.max(now, job.created_ms);
  const found = [];
  const add = (part, from_ms, to_ms, worker = null) => to_ms > from_ms && found.push({ part, from_ms, to_ms, worker });
  // Asked for again after its end: what was before is another life, told in words alone.
  const again = lines.findLastIndex(({ what }, at) => what === "queued" && at > 0 && isOver({ state: lines[at - 1].what }));
  const told = again < 0 ? lines : lines.slice(again);
  let part = "queue";
  let since = told[0]?.at_ms ?? job.created_ms;
  let leased = null;
  for (const line of told) {
    if (line.what === "leased") {
      add(part, since, line.at_ms);
      leased = line;
    } else if (line.what === "queued" && leased !== null) {
      const failed = line.burnt > leased.burnt;
      add(failed ? "lost" : "moved", leased.at_ms, line.at_ms, leased.worker);
      [part, since, leased] = [failed ? "backoff" : "queue", line.at_ms, null];
    }
  }
  if (leased === null) add(part, since, end);
  else attempt(job, leased.at_ms, end, add);
  return found;
}

/** The parts of an attempt: as the worker measured them, or as far as it has come. */
function attempt(job, from, end, add) {
  if (job.timings === null) {
    const begun = Math.min(end, Math.max(from, job.started_ms ?? end));
    add("staging", from, begun, job.worker);
    add(isOver(job) && job.state !== "succeeded" ? "lost" : "running", begun, end, job.worker);
    return;
  }
  let at = from;
  for (const part of STEPS) {
    const last = part === STEPS.at(-1);
    const until = last ? end : Math.min(end, at + ms(job.timings, part));
    add(part, at, until, job.worker);
    at = until;
  }
}

/** Loading the models is a part of the run, where the worker tells it apart. */
function ms(timings, part) {
  const loading = timings.loading_ms ?? 0;
  if (part === "loading") return loading;
  return part === "running" ? Math.max(0, timings.running_ms - loading) : timings[`${part}_ms`];
}

/** Where each stretch begins and how wide it is on a bar of 100; the short ones widened at the cost of the others. */
export function bar(found) {
  const total = found.reduce((sum, one) => sum + one.to_ms - one.from_ms, 0);
  const wanted = found.map((one) => Math.max(LEAST, ((one.to_ms - one.from_ms) / total) * 100));
  const sum = wanted.reduce((one, other) => one + other, 0);
  let at = 0;
  return found.map((one, index) => {
    const width = (wanted[index] / sum) * 100;
    at += width;
    return { ...one, at: at - width, width };
  });
}
