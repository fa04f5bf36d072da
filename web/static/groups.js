// Jobs that belong together: which entries the studio shows, where each stands, and the one card of a whole group.
// Pure. web/groups.py says the same on the server, word for word.
import { duration, isNext, isOver, jobCard, left, moments, sayer } from "./format.js";

/** What the rank of a job begins with that a worker holds ready: before every priority, for they end at 100. */
const NEXT = -101;

/** What the entry of a job is called: its group, or itself. Senders choose ids: a group may have that of a job. */
export const entryOf = (job) => (job.group ? `group:${job.group.id}` : job.id);

/** The jobs as they are shown, by entry: each by itself, or with the others of its group in their order. */
export function members(jobs) {
  const together = new Map();
  for (const job of jobs) {
    const found = together.get(entryOf(job));
    if (found === undefined) together.set(entryOf(job), [job]);
    else found.push(job);
  }
  for (const found of together.values()) if (found.length > 1) found.sort((a, b) => a.group.index - b.group.index);
  return together;
}

const stateOf = (job) => (isNext(job) ? "queued" : job.state);

/** The state of a whole group: what still moves comes before what waits, and a failure before what went well. */
function groupState(jobs) {
  const states = new Set(jobs.map(stateOf));
  const over = jobs.every(isOver);
  const order = over ? ["failed", "succeeded", "cancelled"] : ["running", "leased", "cancelling", "queued"];
  const state = order.find((one) => states.has(one));
  return state === "leased" ? "running" : state;
}

function share(job) {
  if (isOver(job)) return 1;
  return job.progress !== null && !isNext(job) ? job.progress.fraction : 0;
}

function tile(job, index, words) {
  if (job === undefined) return { id: "", state: "", picture: "", label: "" };
  const { id, picture, badge } = jobCard(job, words);
  return { id, state: stateOf(job), picture, label: sayer(words)("group.tile", { number: index + 1, state: badge }) };
}

/** The parts of the card of a group, given those of its jobs that are known. tiles: one for each of its jobs. */
export function groupCard(jobs, words) {
  const say = sayer(words);
  const [first] = jobs;
  const size = Math.max(first.group.size, jobs.length);
  const state = groupState(jobs);
  const known = new Map(jobs.map((job) => [job.group.index, job]));
  const count = (name) => jobs.filter((job) => job.state === name && !isNext(job)).length;
  const counted = ["running", "failed", "cancelled"].filter((name) => count(name) > 0);
  const over = jobs.every(isOver);
  const begun = moments(jobs, "started_ms");
  const ended = moments(jobs, "finished_ms");
  const fraction = jobs.reduce((sum, job) => sum + share(job), 0) / size;
  const still = over || state === "queued";
  const took = over && begun.length > 0 && ended.length > 0;
  const done = say("group.done", { count: count("succeeded"), size });
  return {
    id: entryOf(first),
    state,
    title: jobCard(first, words).title,
    badge: say(`state.${state}`),
    status: [done, ...counted.map((name) => say(`jobs.${name}`, { count: count(name) }))].join(" · "),
    bar: still ? null : fraction,
    percent: still ? "" : say("jobs.percent", { percent: Math.floor(fraction * 100) }),
    took: took ? duration(Math.max(0, Math.max(...ended) - Math.min(...begun)), say) : "",
    columns: Math.ceil(Math.sqrt(Math.min(size, 64))),
    tiles: Array.from({ length: size }, (_, index) => tile(known.get(index), index, words)),
    can_cancel: jobs.some((job) => job.can.cancel),
    can_retry: over && jobs.some((job) => job.can.retry),
    can_use: first.template !== "" && over,
  };
}

/** How long a whole group still takes, in ms, or null: by its own pace, once there is one. */
export function groupLeft(jobs, now) {
  const begun = moments(jobs, "started_ms");
  const waiting = jobs.some((job) => job.state === "queued");
  const fraction = jobs.reduce((sum, job) => sum + share(job), 0) / Math.max(jobs[0].group.size, jobs.length);
  if (!waiting) {
    const each = jobs.filter((job) => !isOver(job)).map((job) => left(job, now));
    if (each.length > 0 && !each.includes(null)) return Math.max(...each);
  }
  if (begun.length === 0 || fraction < 0.1) return null;
  return (Math.max(0, now - Math.min(...begun)) * (1 - fraction)) / fraction;
}

/** In which list an entry stands, and its rank: the queue as it is served; what is being made, then what ended last. */
export function place(jobs) {
  const [first] = jobs;
  const name = entryOf(first);
  if (jobs.every((job) => job.state === "queued" || isNext(job))) {
    const ranks = jobs.map((job) => [isNext(job) ? NEXT : -job.priority, job.created_ms, name]);
    return ["queue", ranks.reduce((a, b) => (before(b, a) ? b : a))];
  }
  if (jobs.some((job) => !isOver(job))) return ["gallery", [0, -first.created_ms, name]];
  return ["gallery", [1, -Math.max(...jobs.map((job) => job.finished_ms ?? job.created_ms)), name]];
}

/** Whether rank `a` comes before rank `b`. */
export function before(a, b) {
  const at = a.findIndex((part, index) => part !== b[index]);
  return at >= 0 && a[at] < b[at];
}
