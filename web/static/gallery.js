// Puts the gallery together: pages of jobs from the API, kept true by the fleet's events, and what a person does there.
import * as api from "./api.js";
import { MOST, all, forget } from "./ask.js";
import { Choice, moved } from "./choice.js";
import { write } from "./dom.js";
import { isOver } from "./format.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import { Previews } from "./previews.js";
import { asked, format, matches, parse, span } from "./query.js";
import { $, announce, data, follow, now, say, toast, words } from "./shell.js";
import { Shelf } from "./shelf.js";
import { Viewer } from "./viewer.js";

const PAGE = 100;
/** So many pages without a match in a row, and a person is asked whether to look further back. */
const PATIENCE = 5;
/** While words are sought only the server knows what matches: it is asked again at most so often. */
const RENEW_MS = 1_500;
/** A page that is left open keeps so many jobs: then it begins with the newest again, once nobody looks at older ones. */
const MANY = 5_000;
const DAY = new Intl.DateTimeFormat(words["app.lang"], { weekday: "short", day: "numeric", month: "long", year: "numeric" });

const shelf = new Shelf();
const choice = new Choice();
const previews = new Previews();
const filters = new Filters($("filters"), refine);
const grid = new Grid($("shots"), $("shot"), words, choice, (job) => previews.url(job), schedule);
let wanted = parse(location.search);
let loading = null;
/** Why the last page did not come, "" if it did. */
let trouble = "";
/** Pages in a row that brought nothing. */
let barren = 0;
/** How far down a person was who comes back; 0 once they are there again, or went elsewhere. */
let back = history.state?.top ?? 0;
/** New jobs wait here while a person looks at older ones: put above them they would move what is looked at. */
const arrived = new Map();

const { store, touch } = follow({ draw: take, message: heard, preview: onPreview });
const viewer = new Viewer($("viewer"), words, {
  now,
  find: (id) => {
    const job = store.jobs.get(id) ?? shelf.get(id);
    return [job, job === undefined ? "" : previews.url(job)];
  },
  beside: (id, by) => {
    if (by > 0 && shelf.beside(id, 3) === null) load();
    return shelf.beside(id, by);
  },
  act: (verb, id) => act(verb, [id]),
  closed: (id) => grid.focus(shelf.card(id)?.key),
});

// ---- pages

async function load() {
  if (loading !== null || shelf.next === "" || barren >= PATIENCE) return;
  const answer = await fetched({ after: shelf.next ?? "", limit: PAGE });
  if (answer === null) return;
  barren = answer.jobs.length > 0 ? 0 : barren + 1;
  const first = shelf.next === null;
  shelf.append(answer);
  // What came meanwhile is not in it.
  if (first) store.jobs.forEach(meet);
  schedule();
}

/** A page of what is wanted; null if it did not come, or something else is wanted by now. */
async function fetched(page) {
  const mine = (loading = new AbortController());
  trouble = "";
  schedule();
  try {
    return await api.jobs(asked(wanted, page), mine.signal);
  } catch (cause) {
    if (cause instanceof api.Refusal) trouble = api.explain(cause, words);
    else if (cause.name !== "AbortError") throw cause;
    return null;
  } finally {
    if (loading === mine) loading = null;
    schedule();
  }
}

let renewing = null;

/** Ask for the newest again, soon and once: the feed was lost, or only the server can tell what matches. */
function renew(at) {
  shelf.doubt(at);
  renewing ??= setTimeout(async () => {
    renewing = null;
    if (shelf.next === null) return;
    if (loading !== null) return renew();
    const answer = await fetched({ limit: MOST });
    // Of many whoever looks at them loses none; what is missing comes when nobody does.
    if (answer === null || (shelf.size > MANY && !idle())) return;
    shelf.renew(answer);
    store.jobs.forEach(meet);
  }, RENEW_MS);
}

/** Nobody looks at older jobs, has chosen some or views one. */
const idle = () => scrollY < innerHeight / 2 && !choice.picked.size && !viewer.id;

/** Show other jobs. typing: the address is one step on from before the words, not one for each of them. */
function refine(next, typing) {
  if (format(next) === format(wanted)) return;
  const step = typing && history.state?.typing ? "replaceState" : "pushState";
  if (step === "pushState") remember();
  back = 0;
  history[step]({ typing }, "", format(next) || location.pathname);
  restart();
}

/** Keep in the history how far down one is. */
function remember() {
  history.replaceState({ ...history.state, top: scrollY }, "");
}

/** As far down as before, loading what lies above. */
function goBack() {
  const isThere = document.documentElement.scrollHeight - innerHeight >= back;
  if (!isThere && shelf.next !== "" && trouble === "" && barren < PATIENCE) {
    load();
    return;
  }
  scrollTo({ top: back, behavior: "instant" });
  back = 0;
}

/** Show what the address asks for. */
function restart() {
  wanted = parse(location.search);
  filters.value = wanted;
  loading?.abort();
  loading = null;
  shelf.clear();
  arrived.clear();
  choice.none();
  barren = 0;
  scrollTo({ top: 0, behavior: "instant" });
  load();
}

// ---- what the fleet says

let fed = false;

function take(due) {
  previews.retain((id, attempt) => store.wants(id, attempt));
  if (due.all && trouble !== "") load();
  else if (due.all && fed) renew();
  fed ||= due.all;
  for (const id of due.all ? store.jobs.keys() : due.jobs) {
    const job = store.jobs.get(id);
    if (job === undefined) continue;
    meet(job);
    viewer.draw(job);
  }
  schedule();
}

/** How the jobs stood that only the server can find in their words. */
const sought = new Map();

/** A job as it is now: on the shelf, kept for later, or not wanted. */
function meet(job) {
  if (shelf.next === null) return;
  if (!matches(job, wanted)) {
    shelf.drop(job.id);
    arrived.delete(job.id);
  } else if (shelf.has(job.id)) {
    shelf.put(job);
  } else if (wanted.q) {
    if (sought.get(job.id) !== job.state) renew();
    if (sought.size > MANY) sought.clear();
    sought.set(job.id, job.state);
  } else if (shelf.reaches(job)) {
    const waits = arrived.has(job.id);
    if (!waits && (scrollY < innerHeight / 2 || !shelf.leads(job))) shelf.put(job);
    else if (waits || arrived.size < MANY) arrived.set(job.id, job);
  }
}

function heard({ type, id }) {
  if (type !== "job_gone") return;
  if (viewer.id === id) viewer.leave();
  shelf.drop(id);
  arrived.delete(id);
  schedule();
}

function onPreview({ id, attempt, blob }) {
  if (!shelf.has(id)) return;
  previews.put(id, attempt, blob);
  touch({ job: id });
}

// ---- drawing

let drawing = false;

function schedule() {
  if (drawing) return;
  drawing = true;
  // After the frame, in a task of its own: to lay out and paint what is there is enough for one.
  requestAnimationFrame(() => setTimeout(draw));
}

function draw() {
  drawing = false;
  if (scrollY < innerHeight / 2 && back === 0) {
    reveal();
    if (shelf.size > MANY && idle() && !loading && !trouble) renew(-1);
  }
  const cards = shelf.cards();
  if (choice.picked.size > 0) {
    const keys = new Set(order());
    choice.retain((key) => keys.has(key));
  }
  grid.draw(cards);
  drawAround(cards);
  if (back > 0) goBack();
  if (grid.view.near && trouble === "") load();
}

function reveal() {
  for (const job of arrived.values()) shelf.put(job);
  arrived.clear();
}

function drawAround(cards) {
  const none = cards.length === 0;
  const over = shelf.next === "";
  const unsifted = format(wanted) === "";
  const tired = barren >= PATIENCE;
  $("skeleton").hidden = !(loading !== null && none);
  $("no-shots").hidden = !(none && over && unsifted);
  $("no-match").hidden = !(none && (over || tired) && !unsifted);
  $("trouble").hidden = trouble === "";
  write($("why"), trouble);
  $("more").hidden = none || over || trouble !== "" || (loading === null && !tired);
  $("further").hidden = !tired || over;
  $("clear").hidden = unsifted;
  write($("news"), arrived.size === 0 ? "" : say("gallery.news", { count: arrived.size }));
  const first = grid.view.card?.jobs[0];
  write($("when"), first === undefined ? "" : DAY.format(first.created_ms));
  drawChoice();
}

function drawChoice() {
  const chosen = jobsChosen();
  $("chosen").hidden = chosen.length === 0;
  $("main").toggleAttribute("data-choosing", chosen.length > 0);
  if (chosen.length === 0) return;
  write($("chosen-count"), say("gallery.chosen", { count: chosen.length }));
  const can = {
    cancel: chosen.some((job) => job.can.cancel),
    retry: chosen.some((job) => job.can.retry),
    delete: chosen.some(isOver),
  };
  for (const [verb, may] of Object.entries(can)) $("chosen").querySelector(`[data-act=${verb}]`).hidden = !may;
  const made = chosen.filter((job) => job.outputs.length > 0).map(({ id }) => id);
  const zip = $("zip");
  zip.hidden = made.length === 0;
  zip.toggleAttribute("data-many", made.length > MOST);
  zip.href = `/api/v1/jobs/zip?ids=${made.slice(0, MOST).join(",")}`;
}

// ---- what a person does

const order = () => shelf.cards().map((card) => card.key);
const jobsChosen = () =>
  choice.picked.size === 0 ? [] : shelf.cards().filter(({ key }) => choice.picked.has(key)).flatMap((card) => card.jobs);

async function act(verb, ids) {
  if (verb === "delete") {
    await forget(ids, (gone) => {
      if (gone.includes(viewer.id)) viewer.leave();
      for (const id of gone) shelf.drop(id);
    });
  } else {
    const done = await all(verb, ids);
    if (done.length > 0) announce(say(`gallery.done.${verb}`, { count: done.length }));
  }
  schedule();
}

/** Do it to those of the chosen jobs that it can be done to. */
function actOnChosen(verb) {
  const can = { cancel: (job) => job.can.cancel, retry: (job) => job.can.retry, delete: isOver }[verb];
  const ids = jobsChosen().filter(can).map(({ id }) => id);
  if (ids.length > 0) act(verb, ids);
}

$("shots").addEventListener("click", (event) => {
  const key = event.target.closest("[data-key]")?.dataset.key;
  const box = event.target.closest("input");
  const link = event.target.closest("a");
  if (key === undefined || (box === null && link === null)) return;
  if (event.shiftKey) choice.stretch(key, order());
  else if (box !== null || event.ctrlKey || event.metaKey) choice.toggle(key);
  else choice.at = key;
  if (link !== null && (event.shiftKey || event.ctrlKey || event.metaKey)) event.preventDefault();
  schedule();
});

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") !== null || event.altKey) return;
  const { target, key } = event;
  if (target.closest("input:not([type=checkbox]), select, textarea, button, summary") !== null) return;
  if (key === "Escape" && choice.picked.size > 0) choice.none();
  else if (key === "a" && (event.ctrlKey || event.metaKey)) choice.all(order());
  else if (key === "Delete") actOnChosen("delete");
  else if (!$("shots").contains(target) || !move(event)) return;
  event.preventDefault();
  schedule();
});

/** Move the keys from card to card; returns whether the key was for that. */
function move({ key, shiftKey: shift, ctrlKey: ctrl }) {
  const keys = order();
  if (key === " ") {
    if (choice.at !== null) choice.toggle(choice.at);
    return choice.at !== null;
  }
  const to = ctrl ? null : moved(key, Math.max(0, keys.indexOf(choice.at)), grid.shape);
  if (to === null) return false;
  if (shift) choice.stretch(keys[to], keys);
  choice.at = keys[to];
  grid.focus(keys[to]);
  return true;
}

$("shots").addEventListener("focusin", ({ target }) => {
  choice.at = target.closest("[data-key]")?.dataset.key ?? choice.at;
});
$("chosen").addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (event.target.closest("[data-many]") !== null) {
    event.preventDefault();
    toast(say("gallery.many", { count: MOST }));
  } else if (button?.dataset.act === "none") {
    choice.none();
    schedule();
  } else if (button !== null) {
    actOnChosen(button.dataset.act);
  }
});
$("news").addEventListener("click", () => {
  reveal();
  scrollTo({ top: 0, behavior: "instant" });
});
for (const id of ["again", "further", "more"]) {
  $(id).addEventListener("click", (event) => {
    event.preventDefault();
    barren = 0;
    load();
  });
}
addEventListener("popstate", () => {
  if (format(parse(location.search)) === format(wanted)) return;
  restart();
  back = history.state?.top ?? 0;
});
addEventListener("pagehide", remember);
for (const name of ["wheel", "touchmove", "pointerdown", "keydown"]) addEventListener(name, () => (back = 0), { passive: true });

history.scrollRestoration = "manual";
filters.value = wanted;
// The server reckoned the days where it stands.
if (String(data.page?.span) === String(span(wanted))) shelf.append(data.page);
viewer.follow();
load();
