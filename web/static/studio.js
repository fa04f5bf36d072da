// Puts the studio together: what the server rendered is taken over, then kept true by the events of the fleet.
import * as api from "./api.js";
import { all, forget } from "./ask.js";
import { write } from "./dom.js";
import { counts, isGone, isOver, jobCard, standing } from "./format.js";
import { entryOf } from "./groups.js";
import { Jobs } from "./jobs.js";
import { Notices } from "./notices.js";
import { Picker } from "./picker.js";
import { Previews } from "./previews.js";
import { $, announce, attempt, data, follow, now, say, toast, words } from "./shell.js";
import { Viewer } from "./viewer.js";
import { Workers } from "./workers.js";

const { templates } = data;
const previews = new Previews();
const preview = (job) => previews.url(job);
const cards = { job: $("job-card"), group: $("group-card") };
const jobs = new Jobs({ queue: $("queue"), gallery: $("gallery") }, cards, words, preview, hindrance, act);
const workers = new Workers($("workers"), $("worker-card"), words);
const picker = $("create") === null ? null : new Picker($("picker"), $("create"), templates, words, send);
const notices = new Notices($("notify"), words);
const viewer = new Viewer($("viewer"), words, {
  now,
  find: (id) => [store.jobs.get(id), store.jobs.has(id) ? previews.url(store.jobs.get(id)) : ""],
  beside: (id, by) => jobs.beside(id, by),
  act: (verb, id) => act(verb, [store.jobs.get(id) ?? { id, can: { cancel: true, retry: true } }]),
});
let unmanned = null;
const { store, touch } = follow({ draw, message: heard, preview: onPreview });

/** Why nothing goes on with these jobs, or null. */
function hindrance(jobs) {
  const holders = jobs.filter((job) => !isOver(job)).map((job) => store.workers.get(job.worker)).filter(Boolean);
  if (holders.length === 0) return unmanned;
  return holders.every((one) => standing(one) === "silent") ? say("worker.silent.idle") : null;
}

/** Why nothing goes on with what nobody holds, or null. */
function lack() {
  const present = [...store.workers.values()].filter((one) => !isGone(one));
  if (!present.every((one) => standing(one) === "silent")) return null;
  return say(present.length > 0 ? "worker.silent.idle" : "queue.unmanned");
}

function draw(due) {
  unmanned = lack();
  previews.retain((id, attempt) => store.wants(id, attempt));
  if (due.all || due.outlook) jobs.foresee(store.outlook);
  if (due.all) {
    jobs.draw(store.jobs, null, now());
  } else {
    drawDue(due);
  }
  const hidden = workers.drawAll(store.workers, store.jobs);
  write($("more-workers"), hidden > 0 ? say("fleet.more", { count: hidden }) : "");
  for (const job of due.all ? store.jobs.values() : [...due.jobs].map((id) => store.jobs.get(id))) {
    if (job !== undefined) viewer.draw(job);
  }
  $("no-workers").hidden = store.workers.size > 0;
  $("no-pictures").hidden = store.jobs.size > 0;
  const waiting = $("waiting");
  waiting.hidden = $("queue").childElementCount === 0;
  // Once it was away, it comes slowly: what is taken up at once moves nothing.
  if (waiting.hidden) waiting.dataset.slow = "";
  if (store.stats !== null) write($("counts"), counts(store.stats, store.jobs.values(), words).join(" · "));
}

function drawDue(due) {
  const waiting = due.outlook ? [...store.jobs.values()].filter((job) => job.state === "queued") : [];
  const ids = new Set([...due.jobs, ...waiting.map(({ id }) => id)]);
  if (ids.size > 0) jobs.draw(store.jobs, ids, now());
}

function heard({ type, job, worker }, before) {
  if (type === "job") tell(job, before);
  const came = worker?.state === "ready" && (picker?.barred || before === undefined || before.state === "joined");
  if (came || type === "worker_gone") reconsider();
}

function tell(job, before) {
  const key = `said.${job.state}`;
  if (before === undefined || before.state === job.state || !(key in words)) return;
  announce(say(key, { title: jobCard(job, words).title }));
  if (job.state !== "cancelled") notices.ended(job, [...store.jobs.values()].filter((one) => entryOf(one) === entryOf(job)));
}

let asking = false;

/** What the fleet can run now. Unanswered, the next worker that comes or goes asks again. */
async function reconsider() {
  if (picker === null || asking) return;
  asking = true;
  const answer = await api.templates().catch(() => null);
  asking = false;
  if (answer !== null) picker.judge(answer.templates);
}

function onPreview({ id, attempt, blob }) {
  previews.put(id, attempt, blob);
  touch({ job: id });
}

/** What a button of a card asks for, of its job or all jobs of its group. */
async function act(verb, about) {
  if (verb === "use") {
    await use(about[0].id);
    return;
  }
  const ids = about.filter((job) => job.can[verb]).map(({ id }) => id);
  if (verb === "delete") await forget([about[0].id], () => viewer.leave());
  else if (about.length > 1) await all(verb, ids);
  else await one(verb, ids[0]);
}

async function one(verb, id) {
  const job = await attempt(() => (verb === "cancel" ? api.cancel(id) : api.retry(id)));
  if (job !== null) touch(store.offer(job));
}

async function use(id) {
  const job = await attempt(() => api.details(id));
  if (job === null) return;
  if (!job.form || !picker?.fill(job.form.template, job.form.params)) {
    toast(say("create.formless"));
    return;
  }
  announce(say("create.filled", { title: jobCard(job, words).title }));
  $("create-title").focus();
  $("create-title").scrollIntoView({ block: "nearest" });
}

/** A job without words is called by what it does. */
async function send({ name, title }, params, count, key) {
  const named = params.prompt?.trim() ? "" : title;
  const made = await api.submit({ template: name, params, title: named, count, key });
  for (const job of made) touch(store.offer(job));
  announce(say("create.sent", { title: jobCard(made[0], words).title }));
}

/** The address may ask for the settings of a job: /?from=ID. */
async function useFromAddress() {
  const id = new URLSearchParams(location.search).get("from");
  if (id === null) return;
  history.replaceState(null, "", location.pathname + location.hash);
  await use(id);
}

setInterval(() => jobs.tick(now()), 1_000);
viewer.follow();
useFromAddress();
