// The fleet page: workers as cards or as a table, the queue by owner and by model, and what an admin may do to them.
import * as api from "./api.js";
import { agreed } from "./ask.js";
import { Board } from "./board.js";
import { stamp, write } from "./dom.js";
import { recall, retain } from "./draft.js";
import { counts, moment } from "./format.js";
import { Histories } from "./histories.js";
import { Machine, Machines } from "./machines.js";
import { arrange, tally } from "./roster.js";
import { $, announce, attempt, data, follow, say, toast, words } from "./shell.js";
import { Table } from "./table.js";

/** A fleet larger than this is first shown as a table. */
const CARDS = 24;
/** The order is made anew this often, not with every word of a worker: rows must not run away under a pointer. */
const ORDER_MS = 5_000;
/** The queue is asked for after a change of the counts, this often at most. */
const QUEUE_MS = 2_000;
const CHART_MS = 5_000;
/** What asks first. */
const HURTS = ["drain", "restart"];

const { admin } = data;
const histories = new Histories(api.history, (name) => chart(name));
const cards = new Machines($("cards"), $("machine"), $("more"), words, watch);
const table = new Table($("table"), $("machine-row"), words, admin, (name) => ({ worker: store.workers.get(name), jobs: store.jobs }));
const board = new Board({ owners: $("owners"), models: $("models") }, $("nothing-waits"), say);
const sheet = new Machine(stamp($("machine")), words);
$("sheet").querySelector("ul").append(sheet.element);

const look = { view: recall("fleet.view"), sort: recall("fleet.sort") ?? "state", reverse: false };
let shown = "";
let heard_ms = Date.now();

const { store } = follow({ draw, message: () => { heard_ms = Date.now(); } });

// ---- drawing

function draw(due) {
  if (due.all) {
    histories.refresh();
    order();
  } else if ([...due.workers].some((name) => !store.workers.has(name) || !known.has(name))) {
    order();
  }
  const touched = due.all ? [...store.workers.keys()] : names(due);
  for (const name of touched) {
    const worker = store.workers.get(name);
    if (worker === undefined) continue;
    if (due.all || due.workers.has(name)) histories.take(worker);
    drawOne(worker);
  }
  if (shown === "table") table.draw(touched);
  if (due.stats || due.all) drawQueue();
  drawStale();
}

/** The workers that changed, and those that hold a job which did. */
function names(due) {
  const found = new Set(due.workers);
  if (due.jobs.size > 0) {
    for (const worker of store.workers.values()) {
      if (worker.held.some(({ job_id: id }) => due.jobs.has(id))) found.add(worker.name);
    }
  }
  return found;
}

function drawOne(worker) {
  const { name } = worker;
  if (shown === "cards" && cards.seen.has(name)) cards.card(name)?.draw(worker, store.jobs, admin);
  if (opened === name) sheet.draw(worker, store.jobs, admin);
  chart(name);
}

function chart(name) {
  const samples = histories.samples(name);
  if (shown === "cards" && cards.seen.has(name)) cards.card(name)?.chart(samples, histories.now);
  if (opened === name) sheet.chart(samples, histories.now);
}

/** Those in sight came or went: their samples are kept, and what changed meanwhile is drawn. */
function watch(seen) {
  histories.watch(opened === null ? seen : [...seen, opened]);
  for (const name of seen) if (store.workers.has(name)) drawOne(store.workers.get(name));
}

const known = new Set();

function order() {
  const all = [...store.workers.values()];
  known.clear();
  for (const { name } of all) known.add(name);
  const view = look.view ?? (all.length > CARDS ? "table" : "cards");
  const changed = view !== shown;
  shown = view;
  $("cards").hidden = view !== "cards";
  $("table").hidden = view !== "table";
  $("view").querySelector(`[value=${view}]`).checked = true;
  $("sort").value = look.sort;
  const found = arrange(all, { ...look, query: $("filter").value });
  cards.arrange(view === "cards" ? found : []);
  if (view === "table") table.arrange(found);
  if (changed && view === "table") watch([]);
  $("tools").hidden = all.length === 0;
  $("no-workers").hidden = all.length > 0;
  $("no-match").hidden = all.length === 0 || found.length > 0;
  write($("tally"), tally(all).map(([one, count]) => say("fleet.count", { count, standing: say(`worker.${one}`) })).join(" · "));
  for (const head of $("table").querySelectorAll("[data-sort]")) {
    if (head.dataset.sort === look.sort) head.setAttribute("aria-sort", look.reverse ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

/** What is shown while nothing is heard is told to be old. */
function drawStale() {
  const stale = !store.connected || store.serial === null;
  $("main").toggleAttribute("data-stale", stale);
  write($("stale"), stale ? say("fleet.stale", { time: moment(heard_ms, Date.now(), words) }) : "");
}

// ---- the queue

function drawQueue() {
  if (store.stats === null) return;
  write($("counts"), counts(store.stats, store.jobs.values(), words).join(" · "));
  const { paused } = store.stats;
  $("hold").dataset.paused = paused ? "yes" : "no";
  write($("hold"), say(paused ? "fleet.resume_all" : "fleet.pause_all"));
  asking ??= setTimeout(askQueue, Math.max(0, asked_ms + QUEUE_MS - Date.now()));
}

let asked_ms = 0;
let asking = null;

/** What it does not answer now it is asked with the next change. */
async function askQueue() {
  asking = null;
  asked_ms = Date.now();
  try {
    if (store.connected) board.draw(await api.queue());
  } catch (cause) {
    if (!(cause instanceof api.Refusal)) throw cause;
  }
}

async function hold() {
  const verb = store.stats?.paused ? "resume" : "pause";
  if (verb === "pause" && !(await agreed(say("fleet.ask.pause_all"), say("fleet.pause_all")))) return;
  if (await attempt(() => api.hold(verb))) announce(say(`fleet.said.${verb}_all`));
}

// ---- what is done to a worker

async function act(verb, name) {
  if (HURTS.includes(verb) && !(await agreed(say(`fleet.ask.${verb}`, { name }), say(`fleet.act.${verb}`)))) return;
  if (await attempt(() => api.toWorker(name, verb))) announce(say(`fleet.said.${verb}`, { name }));
}

/** A button that is barred says why to whoever presses it. */
function pressed({ target }) {
  const button = target.closest("button[data-act]");
  if (button === null) return;
  if (button.getAttribute("aria-disabled") === "true") toast(button.title);
  else act(button.dataset.act, button.closest("[data-worker]").dataset.worker);
}

// ---- one worker of the table, alone

let opened = null;

function open(name) {
  opened = name;
  histories.watch([...cards.seen, name]);
  const worker = store.workers.get(name);
  if (worker !== undefined) drawOne(worker);
  $("sheet").showModal();
}

$("sheet").addEventListener("close", () => {
  opened = null;
  histories.watch([...cards.seen]);
});
$("sheet").addEventListener("click", (event) => {
  if (event.target === $("sheet") || event.target.closest("[data-close]") !== null) $("sheet").close();
  else pressed(event);
});
$("cards").addEventListener("click", pressed);
$("rows").addEventListener("click", ({ target }) => {
  const row = target.closest("[data-open]")?.closest("[data-worker]");
  if (row) open(row.dataset.worker);
});

// ---- how it is looked at

$("hold").addEventListener("click", () => ($("hold").getAttribute("aria-disabled") === "true" ? toast($("hold").title) : hold()));
$("filter").addEventListener("input", order);
$("sort").addEventListener("change", () => sortBy($("sort").value, false));
$("view").addEventListener("change", ({ target }) => {
  look.view = target.value;
  retain("fleet.view", look.view);
  order();
});
$("table").tHead.addEventListener("click", ({ target }) => {
  const sort = target.closest("button")?.closest("[data-sort]").dataset.sort;
  if (sort !== undefined) sortBy(sort, sort === look.sort && !look.reverse);
});

function sortBy(sort, reverse) {
  Object.assign(look, { sort, reverse });
  retain("fleet.sort", sort);
  order();
}

setInterval(() => document.hidden || order(), ORDER_MS);
setInterval(() => document.hidden || (opened === null ? [...cards.seen] : [...cards.seen, opened]).forEach(chart), CHART_MS);
