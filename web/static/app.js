// Puts the page together: what the server rendered is taken over, then kept true by the events of the fleet.
import * as api from "./api.js";
import { write } from "./dom.js";
import { counts, jobCard, sayer } from "./format.js";
import { Jobs } from "./jobs.js";
import { Picker } from "./picker.js";
import { Previews } from "./previews.js";
import { Connection } from "./socket.js";
import { Store } from "./store.js";
import { Viewer } from "./viewer.js";
import { Workers } from "./workers.js";

const TOAST_MS = 8_000;

const $ = (id) => document.getElementById(id);
const { snapshot, templates, words } = JSON.parse($("data").textContent);
const say = sayer(words);
const store = new Store();
const previews = new Previews();
const jobs = new Jobs({ queue: $("queue"), gallery: $("gallery") }, $("job-card"), words, act);
const workers = new Workers($("workers"), $("worker-card"), words);
const picker = $("create") === null ? null : new Picker($("picker"), $("create"), templates, words, send);
const viewer = new Viewer($("viewer"), words, templates, act, () => {
  if (location.hash !== "") history.replaceState(null, "", location.pathname + location.search);
});

// ---- drawing: whatever changed since the last frame, once

const clean = () => ({ all: false, jobs: new Set(), workers: new Set(), drawing: false });
let dirty = clean();

function changed({ all, job, dropped, worker, gap }) {
  if (gap) connection.send({ type: "resync" });
  if (all) dirty.all = true;
  if (worker !== undefined) dirty.workers.add(worker);
  for (const id of [job, dropped]) if (id !== undefined) dirty.jobs.add(id);
  if (dirty.drawing) return;
  dirty.drawing = true;
  requestAnimationFrame(draw);
}

function draw() {
  const due = dirty;
  dirty = clean();
  previews.retain((id, attempt) => store.wants(id, attempt));
  if (due.all) {
    jobs.drawAll(store.jobs, (job) => previews.url(job), Date.now());
    workers.drawAll(store.workers, store.jobs);
  } else {
    drawDue(due);
  }
  const open = store.jobs.get(viewer.id);
  if (open !== undefined) viewer.draw(open, previews.url(open));
  drawRest();
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

function drawRest() {
  $("simulated").hidden = ![...store.workers.values()].some((worker) => worker.simulated);
  $("no-workers").hidden = store.workers.size > 0;
  $("no-pictures").hidden = store.jobs.size > 0;
  $("waiting").hidden = $("queue").childElementCount === 0;
  if (store.stats !== null) write($("counts"), counts(store.stats, store.jobs.values(), words).join(" · "));
  drawLink();
}

// ---- the connection: live, reconnecting, or live to a server that cannot reach the broker

let link = "connecting";

function drawLink() {
  const state = link !== "reconnecting" && !store.connected ? "unreachable" : link;
  for (const id of ["link", "notice"]) $(id).dataset.link = state;
  write($("link").firstElementChild, say(`link.${state}`));
  const paused = store.stats?.paused ? say("fleet.paused") : "";
  write($("notice"), words[`link.${state}.help`] ?? paused);
}

function onMessage(message) {
  const before = store.jobs.get(message.job?.id)?.state;
  const was = store.workers.get(message.worker?.name)?.state;
  const change = store.apply(message);
  if (message.type === "snapshot") link = "live";
  if (change.job !== undefined && message.type === "job") announce(message.job, before);
  const came = message.worker?.state === "ready" && (picker?.barred || was === undefined || was === "joined");
  if (came || message.type === "worker_gone") reconsider();
  if (message.type !== "tick") changed(change);
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
  if (!store.wants(id, attempt)) return;
  previews.put(id, attempt, blob);
  changed({ job: id });
}

/** Tell people who listen rather than look what ended. */
function announce(job, before) {
  const key = `said.${job.state}`;
  if (before !== undefined && before !== job.state && key in words) {
    $("said").textContent = say(key, { title: jobCard(job, words).title });
  }
}

const connection = new Connection(
  `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/api/v1/events`,
  {
    open: () => store.await(),
    message: onMessage,
    preview: onPreview,
    lost: () => {
      link = "reconnecting";
      store.await();
      drawLink();
    },
    refused: () => location.reload(),
  },
  { WebSocket, setTimeout: setTimeout.bind(window), clearTimeout: clearTimeout.bind(window), random: Math.random },
);

// ---- what a person does

let toasting = null;

function toast(text) {
  clearTimeout(toasting);
  write($("toast"), text);
  toasting = setTimeout(() => write($("toast"), ""), TOAST_MS);
}

async function act(verb, id) {
  try {
    changed(store.offer(await (verb === "cancel" ? api.cancel(id) : api.retry(id))));
  } catch (cause) {
    if (!(cause instanceof api.Refusal)) throw cause;
    toast(say("jobs.refused", { why: cause.message }));
  }
}

/** A job without words is called by what it does. */
async function send(template, params, key) {
  const job = await api.submit(template.name, params, params.prompt?.trim() ? "" : template.title, key);
  changed(store.offer(job));
  $("said").textContent = say("create.sent", { title: jobCard(job, words).title });
}

function openFromAddress() {
  const id = /^#job-([\w-]+)$/.exec(location.hash)?.[1];
  if (id === undefined) viewer.close();
  else viewer.open(id, store.jobs.get(id), store.jobs.has(id) ? previews.url(store.jobs.get(id)) : "");
}

function switchTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const root = document.documentElement;
  const theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

$("theme").addEventListener("click", switchTheme);
// A picture that misses its field must not take the place of the page.
for (const name of ["dragover", "drop"]) {
  addEventListener(name, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
}
addEventListener("hashchange", openFromAddress);
addEventListener("online", () => connection.wake());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && connection.wake());
setInterval(() => jobs.tick(Date.now()), 1_000);

store.load(snapshot);
changed({ all: true });
connection.open();
openFromAddress();
