// What the page says about a job, a worker and the counts: from the API's records to the words of a card.
// Pure: no document, no clock but the `now` it is given. web/describe.py says the same on the server, word for word.

const GIB = 2 ** 30;
/** What all names of cards begin with tells none from another. */
const MAKER = /^NVIDIA (?:GeForce )?/;

/** The sentences of the page: `say(key, values)` fills the {places} of sentence `key`. */
export function sayer(words) {
  return (key, values = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** A time for people: 840 ms, 12.4 s, 2 min 5 s, 1 h 4 min. */
export function duration(ms, say) {
  if (ms < 1_000) return say("unit.ms", { ms });
  if (ms < 60_000) return say("unit.s", { s: `${Math.floor(ms / 1_000)}.${Math.floor((ms % 1_000) / 100)}` });
  if (ms < 3_600_000) return say("unit.min", { min: Math.floor(ms / 60_000), s: Math.floor((ms % 60_000) / 1_000) });
  return say("unit.h", { h: Math.floor(ms / 3_600_000), min: Math.floor((ms % 3_600_000) / 60_000) });
}

/** A running clock: whole seconds only, so that it does not flicker. */
export function elapsed(ms, say) {
  const whole = Math.max(0, Math.floor(ms / 1_000)) * 1_000;
  return whole < 60_000 ? say("unit.s", { s: whole / 1_000 }) : duration(whole, say);
}

/** A time to come, as coarse as a guess is: a few seconds, about 40 s, about 3 min, about 2 h. */
export function about(ms, say) {
  if (ms < 8_000) return say("eta.soon");
  if (ms < 60_000) return say("eta.s", { s: Math.ceil(ms / 5_000) * 5 });
  if (ms < 3_600_000) return say("eta.min", { min: Math.ceil(ms / 60_000) });
  return say("eta.h", { h: Math.ceil(ms / 3_600_000) });
}

/**
 * How long a running job still takes, in ms, or null where nothing tells. What was expected counts less, and the pace
 * it goes at more, the further it is.
 */
export function left(job, now) {
  if (job.state !== "running" || job.started_ms === null) return null;
  const [done, gone] = [job.progress?.fraction ?? 0, Math.max(0, now - job.started_ms)];
  const paced = done > 0.05 ? (gone * (1 - done)) / done : null;
  if (typeof job.expect_ms !== "number") return paced;
  const expected = Math.max(0, job.expect_ms - gone);
  return paced === null ? expected : expected * (1 - done) + paced * done;
}

/** One decimal below ten, none above: 7.9, 24. */
export function gibibytes(bytes) {
  const tenths = Math.floor((bytes * 10) / GIB);
  return tenths < 100 ? `${Math.floor(tenths / 10)}.${tenths % 10}` : String(Math.floor((bytes + GIB / 2) / GIB));
}

/** A moment as people of this language write it: the time today, else the date and the time. */
export function moment(ms, now, words) {
  const [at, today] = [new Date(ms), new Date(now).toDateString()];
  const style = at.toDateString() === today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return at.toLocaleString(words["app.lang"], style);
}

/** The size of a file: 840 B, 31 kB, 1.4 MB. */
export function fileSize(bytes) {
  if (bytes < 1_000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${Math.round(bytes / 1_000)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** The name of a file as it may stand in a sentence: nothing in it turns the writing around, and it is not too long. */
export function fileName(name) {
  const plain = name.replace(/\p{C}/gu, "");
  return plain.length > 48 ? `${plain.slice(0, 32)}…${plain.slice(-12)}` : plain;
}

/** The outputs worth looking at: saved pictures, else any pictures (ComfyUI's previews of them). */
export function pictures(job) {
  const images = job.outputs.filter((output) => output.media_type.startsWith("image/"));
  const saved = images.filter((output) => output.kind === "output");
  return saved.length > 0 ? saved : images;
}

/** Whether nothing more happens to the job, unless a person asks for it again. */
export const isOver = ({ state }) => ["succeeded", "failed", "cancelled"].includes(state);

/** Whether a worker has it. */
const isHeld = ({ state }) => ["leased", "running", "cancelling"].includes(state);

/** When each of the jobs was begun that were, and when each was over: moments named `which`, in ms. */
export const moments = (jobs, which) => jobs.map((job) => job[which]).filter((ms) => ms !== null);

/** Whether a worker holds the job ready, but its ComfyUI has not begun it. */
export const isNext = (job) => ["leased", "running"].includes(job.state) && job.started_ms === null;

/** How often it was begun, as people count: what was moved before it ran was not. */
export const tries = ({ attempt, burnt }) => Math.min(attempt, burnt + 1);

/** What is happening to the job, in one line. place: from 1 in the queue of the whole fleet, null where it is not known. */
export function status(job, say, place = null) {
  const { state, progress } = job;
  const worker = job.worker ?? say("status.somewhere");
  if (state === "queued" && place !== null) return say("status.place", { place });
  if (state === "queued") return say(job.burnt > 0 ? "status.again" : "status.queued");
  if (state === "failed" && job.worker === null) return say("status.failed.nowhere");
  if (isNext(job)) return say("status.next", { worker });
  if (state !== "running") return say(`status.${state}`, { worker });
  if (job.phase === "finishing") return say("status.finishing");
  if (progress === null || (!progress.node_type && !progress.text)) return say("status.starting", { worker });
  if (progress.kind === "text" && progress.text) return progress.text;
  const { node_type: node, value, most } = progress;
  return most > 0 ? say("status.step", { node, value, most }) : say("status.node", { node });
}

/** The node that failed, as far as it is known. */
function node({ node_type: type, node_id: id }, say) {
  return type && id ? say("error.node", { type, id }) : type || id;
}

/** On which worker it is being made and why on that one, as far as the fleet tells; "" where nothing is made. */
export function where(job, words) {
  if (!isHeld(job) || job.worker === null) return "";
  const key = `why.${job.why}`;
  return sayer(words)(key in words ? key : "why.unknown", { worker: job.worker });
}

/** Why a job failed; a reason of a newer broker is a failure all the same. */
export const reason = (code, words) => words[`reason.${code}`] ?? words["reason.unknown"];

/** The parts of a job's card. bar: the share that is done, or null where nothing moves; place: as for `status`. */
export function jobCard(job, words, place = null) {
  const say = sayer(words);
  const shown = pictures(job);
  const { error } = job;
  const live = isHeld(job);
  const fraction = job.progress === null ? 0 : job.progress.fraction;
  const took = job.started_ms !== null && job.finished_ms !== null;
  return {
    id: job.id,
    state: job.state,
    title: job.title.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "") || say("jobs.untitled"),
    badge: say(isNext(job) ? "state.next" : `state.${job.state}`),
    status: status(job, say, place),
    where: where(job, words),
    picture: shown.length > 0 ? shown[0].url : "",
    many: shown.length > 1 ? say("jobs.many", { count: shown.length }) : "",
    bar: live ? fraction : null,
    percent: live ? say("jobs.percent", { percent: Math.floor(fraction * 100) }) : "",
    attempt: tries(job) > 1 ? say("jobs.try", { attempt: tries(job) }) : "",
    took: took ? duration(Math.max(0, job.finished_ms - job.started_ms), say) : "",
    problem: error ? reason(error.reason, words) : "",
    message: error ? error.message : "",
    node: error ? node(error, say) : "",
    can_cancel: job.can.cancel,
    can_retry: job.can.retry,
    can_use: job.template !== "" && !live,
  };
}

/** Whether the worker is not there any more. */
export const isGone = ({ state }) => state === "lost" || state === "left";

/** What a worker's machine tells; null where it tells nothing, or not any more. */
export const readings = (worker) => (isGone(worker) ? null : worker.stats);

/** How full the card is, as text and as a share; a machine without a card tells its RAM. */
export function memory(stats, say) {
  if (stats === null) return [say("fleet.memory.unknown"), 0];
  const kind = stats.vram_total_bytes > 0 ? "vram" : "ram";
  const total = stats[`${kind}_total_bytes`];
  const used = Math.max(0, total - stats[`${kind}_free_bytes`]);
  return [say(`fleet.${kind}`, { used: gibibytes(used), total: gibibytes(total) }), total > 0 ? used / total : 0];
}

/** How a worker stands, as one word: what keeps it from work says more than its being ready does. */
export function standing({ state, paused, breaker, stats }) {
  if (state === "lost" || state === "left" || state === "draining") return state;
  if (breaker && breaker.state !== "closed") return breaker.state;
  if (stats !== null && !stats.comfy_alive && state !== "joined") return "silent";
  return paused && state !== "busy" ? "paused" : state;
}

/** Whether an attempt that a worker holds is the one its ComfyUI works at. */
export const runs = ({ phase }) => phase === "running" || phase === "finishing";

/**
 * The parts of a worker's card; `jobs` (a Map by id) tells of the jobs it holds. bar: as of `jobCard`. While its ComfyUI
 * is silent nothing is known to go on there.
 */
export function workerCard(worker, jobs, words) {
  const say = sayer(words);
  const state = standing(worker);
  const held = state === "silent" ? [] : [...worker.held];
  const [told, share] = memory(readings(worker), say);
  const [first, ...staged] = held.sort((a, b) => Number(runs(b)) - Number(runs(a))).map((one) => one.job_id);
  const job = jobs.get(first);
  const card = job === undefined ? null : jobCard(job, words);
  return {
    name: worker.name,
    state,
    badge: say(`worker.${state}`),
    card: worker.gpu.name.replace(MAKER, "") || say("fleet.card.unknown"),
    memory: told,
    share,
    job: card === null ? "" : first,
    title: card?.title ?? (first === undefined ? "" : say("fleet.else")),
    doing: first === undefined ? say(`worker.${state}.idle`) : "",
    bar: card?.bar ?? null,
    percent: card?.percent ?? "",
    staged,
    next: staged.length > 0 ? say("fleet.next", { count: staged.length }) : "",
  };
}

/**
 * How many jobs run, wait and are over; what is at nought is left out, but for the running ones. `jobs`: those on the
 * page, for the counts of the fleet do not tell which of the jobs held by a worker wait there, and come later.
 */
export function counts(stats, jobs, words) {
  const say = sayer(words);
  const all = [...jobs];
  const ready = all.filter(isNext).length;
  const told = Math.max(0, stats.leased + stats.running + stats.cancelling - ready);
  const running = Math.max(told, all.filter(isHeld).length - ready);
  const waiting = all.filter(({ state }) => state === "queued").length + ready;
  const numbers = {
    running,
    queued: Math.max(waiting, stats.queued + ready - (running - told)),
    succeeded: stats.succeeded,
    failed: stats.failed,
  };
  return Object.entries(numbers)
    .filter(([key, n]) => n > 0 || key === "running")
    .map(([key, n]) => say(`jobs.${key}`, { count: n.toLocaleString(words["app.lang"]) }));
}
