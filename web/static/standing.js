// What the fleet page says about a worker: from the API's record to the words of its card and its row.
// Pure: no document, no clock. web/standing.py says the same on the server, word for word.
import { gibibytes, isGone, jobCard, readings, runs, sayer, standing, status, workerCard } from "./format.js";

/** What can be done to a worker, in the order of its buttons. */
export const VERBS = ["pause", "resume", "drain", "probe", "restart"];

/** Resident models named on a card; the others are counted. */
const MODELS = 4;

const isShut = (breaker) => breaker == null || breaker.state === "closed";

/** How hard the card works, 0 to 1; where no driver tells, whether a job runs. */
const load = ({ stats, held }) => stats?.gpu_busy ?? Number(held.some(runs));

function busy(worker, say) {
  const stats = readings(worker);
  if (stats === null) return "";
  const percent = Math.floor(load(worker) * 100);
  if (stats.gpu_busy !== null) return say("fleet.busy", { percent });
  return say(percent > 0 ? "fleet.working" : "fleet.resting");
}

function heat(stats, say) {
  const parts = [];
  if (stats !== null && stats.gpu_celsius !== null) parts.push(say("fleet.warm", { celsius: stats.gpu_celsius }));
  if (stats !== null && stats.gpu_watts !== null) parts.push(say("fleet.power", { watts: stats.gpu_watts }));
  return parts.join(" · ");
}

/** A model by its file's name alone, which is what fits; its whole name beside it. */
function model(name) {
  const file = name.slice(name.lastIndexOf("/") + 1);
  return { short: file.slice(0, Math.max(0, file.lastIndexOf("."))) || file, name };
}

/** One decimal below ten, none above: 0.4, 1, 9.5, 24. */
function tenths(number) {
  const all = Math.floor(number * 10 + 0.5);
  return all < 100 && all % 10 > 0 ? `${Math.floor(all / 10)}.${all % 10}` : String(Math.floor(all / 10));
}

function tally({ jobs_per_hour: rate, speed, succeeded, failed }, say) {
  const parts = rate == null ? [] : [say("fleet.rate", { count: tenths(rate) })];
  parts.push(say("jobs.succeeded", { count: succeeded }));
  if (failed > 0) parts.push(say("jobs.failed", { count: failed }));
  if (speed != null && speed !== 1) parts.push(say("fleet.speed", { times: tenths(speed) }));
  return parts.join(" · ");
}

/** What keeps it from work and will not pass by itself, "" for nothing. */
function trouble(worker, say) {
  const { breaker } = worker;
  if (!isShut(breaker)) return say(`fleet.breaker.${breaker.state}`, { why: breaker.why });
  if (worker.contested) return say("fleet.contested", { name: worker.name });
  return standing(worker) === "silent" ? say("fleet.silent", { why: worker.stats.comfy_fault }) : "";
}

function version({ version: worker, comfyui_version: comfyui }, say) {
  return say(comfyui === "" ? "fleet.version.alone" : "fleet.version", { worker, comfyui });
}

function host(stats, say) {
  if (stats === null) return say("fleet.memory.unknown");
  const used = gibibytes(Math.max(0, stats.ram_total_bytes - stats.ram_free_bytes));
  const percent = Math.floor(stats.cpu_busy * 100);
  const said = say("fleet.host", { used, total: gibibytes(stats.ram_total_bytes), percent });
  const disk = stats.disk_free_bytes;
  return disk === null ? said : `${said} · ${say("fleet.disk", { free: gibibytes(disk) })}`;
}

/** Whether a button for it stands on the card at all. */
function fits(verb, { paused, breaker }) {
  if (verb === "pause" || verb === "resume") return paused === (verb === "resume");
  return verb !== "probe" || !isShut(breaker);
}

/** Why it cannot be done now, "" when it can. */
function barred(verb, worker, say, admin) {
  if (!admin) return say("fleet.why.admin");
  if (isGone(worker)) return say("fleet.why.lost");
  if (verb === "drain" && worker.state === "draining") return say("fleet.why.draining");
  if ((verb === "probe" || verb === "restart") && !worker.can?.[verb]) return say(`fleet.why.${verb}`);
  return "";
}

/** The parts of a worker's card, more than the studio shows of it; `jobs` (a Map by id) tells of the jobs it holds. */
export function facts(worker, jobs, words, admin) {
  const say = sayer(words);
  const card = workerCard(worker, jobs, words);
  const title = (id) => (jobs.has(id) ? jobCard(jobs.get(id), words).title : say("fleet.else"));
  const models = worker.resident ?? [];
  const stats = readings(worker);
  const wrong = trouble(worker, say);
  let doing = wrong === "" ? card.doing : "";
  if (card.job !== "") doing = status(jobs.get(card.job), say);
  return {
    ...card,
    simulated: worker.simulated,
    busy: busy(worker, say),
    load: load(worker),
    heat: heat(stats, say),
    doing,
    staged: card.staged.length > 0 ? say("fleet.staged", { titles: card.staged.map(title).join(", ") }) : "",
    models: models.slice(0, MODELS).map(model),
    more: models.length > MODELS ? say("fleet.models.more", { count: models.length - MODELS }) : "",
    rate: worker.jobs_per_hour == null ? "" : tenths(worker.jobs_per_hour),
    failed: String(worker.failed),
    tally: tally(worker, say),
    trouble: wrong,
    labels: [...worker.labels],
    version: version(worker, say),
    host: host(stats, say),
    acts: Object.fromEntries(VERBS.filter((verb) => fits(verb, worker)).map((verb) => [verb, barred(verb, worker, say, admin)])),
  };
}
