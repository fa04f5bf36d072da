// Puts the studio together: what the server rendered is taken over, then kept true by the events of the fleet.
import * as api from "./api.js";
import { forget } from "./ask.js";
import { write } from "./dom.js";
import { counts, jobCard } from "./format.js";
import { Jobs } from "./jobs.js";
import { Picker } from "./picker.js";
import { Previews } from "./previews.js";
import { $, announce, attempt, data, follow, say, words } from "./shell.js";
import { Viewer } from "./viewer.js";
import { Workers } from "./workers.js";

const { templates } = data;
const previews = new Previews();
const jobs = new Jobs({ queue: $("queue"), gallery: $("gallery") }, $("job-card"), words, act);
const workers = new Workers($("workers"), $("worker-card"), words);
const picker = $("create") === null ? null : new Picker($("picker"), $("create"), templates, words, send);
const viewer = new Viewer($("viewer"), words, {
  find: (id) => [store.jobs.get(id), store.jobs.has(id) ? previews.url(store.jobs.get(id)) : ""],
  beside: (id, by) => jobs.beside(id, by),
  act,
});
const { store, touch } = follow({ draw, message: heard, preview: onPreview });

// ---- drawing: whatever changed since the last frame, once

function draw(due) {
  previews.retain((id, attempt) => store.wants(id, attempt));
  if (due.all) {
    jobs.drawAll(store.jobs, (job) => previews.url(job), Date.now());
    workers.drawAll(store.workers, store.jobs);
  } else {
    drawDue(due);
  }
  for (const job of due.all ? store.jobs.values() : [...due.jobs].map((id) => store.jobs.get(id))) {
    if (job !== undefined) viewer.draw(job);
  }
  $("no-workers").hidden = store.workers.size > 0;
  $("no-pictures").hidden = store.jobs.size > 0;
  $("waiting").hidden = $("queue").childElementCount === 0;
  if (store.stats !== null) write($("counts"), counts(store.stats, store.jobs.values(), words).join(" · "));
}

/** The jobs and workers that changed, and the workers that hold such a job. */
function drawDue(due) {
  for (const id of due.jobs) {
    const job = store.jobs.get(id);
    if (job !== undefined) jobs.draw(job, previews.url(job), Date.now());
    else jobs.remove(id);
  }
  for (const worker of store.workers.values()) {
    const touched = due.workers.has(worker.name) || worker.held.some(({ job_id: id }) => due.jobs.has(id));
    if (touched) workers.draw(worker, store.jobs);
  }
  for (const name of due.workers) if (!store.workers.has(name)) workers.remove(name);
}

// ---- what the fleet says

function heard({ type, job, worker }, before) {
  if (type === "job") tell(job, before);
  const came = worker?.state === "ready" && (picker?.barred || before === undefined || before.state === "joined");
  if (came || type === "worker_gone") reconsider();
}

/** Tell people who listen rather than look what ended. */
function tell(job, before) {
  const key = `said.${job.state}`;
  if (before !== undefined && before.state !== job.state && key in words) {
    announce(say(key, { title: jobCard(job, words).title }));
  }
}

let asking = false;

/** A worker came or went, and what the fleet can run with it. Unanswered, the next one asks again. */
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

// ---- what a person does

async function act(verb, id) {
  if (verb === "delete") {
    await forget([id], () => viewer.leave());
    return;
  }
  const job = await attempt(() => (verb === "cancel" ? api.cancel(id) : api.retry(id)));
  if (job !== null) touch(store.offer(job));
}

/** A job without words is called by what it does. */
async function send(template, params, key) {
  const job = await api.submit(template.name, params, params.prompt?.trim() ? "" : template.title, key);
  touch(store.offer(job));
  announce(say("create.sent", { title: jobCard(job, words).title }));
}

setInterval(() => jobs.tick(Date.now()), 1_000);
viewer.follow();
