// What every page has: its words, the line to the fleet and how it stands, notices, the theme, the title.
import { Refusal, explain } from "./api.js";
import { write } from "./dom.js";
import { retain } from "./draft.js";
import { isNext, sayer } from "./format.js";
import { Connection } from "./socket.js";
import { Store } from "./store.js";

const TOAST_MS = 8_000;
/** So often a hidden page draws. */
const HIDDEN_MS = 1_000;

/** Headers tell the time by the second. */
const SKEW_MS = 2_000;

export const $ = (id) => document.getElementById(id);

/** What the server embedded: {words, …}, the rest being the page's own. */
export const data = JSON.parse($("data").textContent);
export const { words } = data;
export const say = sayer(words);

let toasting = null;

/** Show this for a while. */
export function toast(text) {
  clearTimeout(toasting);
  write($("toast"), text);
  toasting = setTimeout(() => write($("toast"), ""), TOAST_MS);
}

/** For people who listen rather than look. */
export function announce(text) {
  $("said").textContent = text;
}

/** Do what a person asked for, and show why if it was refused. Resolves to the answer, or to null. */
export async function attempt(asked) {
  try {
    return await asked();
  } catch (cause) {
    if (!(cause instanceof Refusal)) throw cause;
    toast(say("jobs.refused", { why: explain(cause, words) }));
    return null;
  }
}

let skew = 0;

/** The server's time, as the times of jobs are: the clock of whoever looks may be minutes off. */
export const now = () => Date.now() + skew;

async function setClock() {
  const answer = await fetch("/healthz", { method: "HEAD" }).catch(() => null);
  const ahead = Date.parse(answer?.headers.get("Date")) - Date.now();
  if (!Number.isNaN(ahead)) skew = Math.abs(ahead) > SKEW_MS ? ahead : 0;
}

/**
 * Follow the fleet's events. Returns {store, touch}: the store is kept true, and draw(due) called once a frame with what
 * changed: {all, stats, outlook}, and sets of ids {jobs} and names {workers}, also of those gone. touch(change) draws a
 * change of the page's own. message(message, before): each as it comes, with the job or worker as it was.
 */
export function follow({ draw, message: heard, preview }) {
  const store = new Store();
  const clean = () => ({ all: false, stats: false, outlook: false, jobs: new Set(), workers: new Set() });
  let due = clean();
  let scheduled = null;
  let link = "connecting";

  function drawNow() {
    scheduled?.();
    scheduled = null;
    const drawn = due;
    due = clean();
    draw(drawn);
    drawShell(store, link);
  }

  function schedule() {
    if (scheduled !== null) return;
    if (document.hidden) {
      const timer = setTimeout(drawNow, HIDDEN_MS);
      scheduled = () => clearTimeout(timer);
    } else {
      const frame = requestAnimationFrame(drawNow);
      scheduled = () => cancelAnimationFrame(frame);
    }
  }

  function touch({ all, stats, fleet, outlook, job, dropped, worker, gap }) {
    if (gap) connection.send({ type: "resync" });
    due.all ||= all === true;
    due.stats ||= stats === true || fleet === true;
    due.outlook ||= outlook === true;
    if (worker !== undefined) due.workers.add(worker);
    for (const id of [job, dropped]) if (id !== undefined) due.jobs.add(id);
    schedule();
  }

  const connection = new Connection(
    `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/api/v1/events`,
    {
      open: () => {
        store.await();
        setClock();
      },
      message: (message) => {
        const before = store.jobs.get(message.job?.id);
        const known = store.workers.get(message.worker?.name);
        const change = store.apply(message);
        if (message.type === "snapshot") link = "live";
        heard?.(message, message.type === "worker" ? known : before);
        if (message.type !== "tick") touch(change);
      },
      preview: (found) => store.wants(found.id, found.attempt) && preview?.(found),
      lost: () => {
        link = "reconnecting";
        store.await();
        touch({ stats: true });
      },
      refused: () => location.reload(),
    },
    // Date goes on while a machine sleeps.
    {
      WebSocket,
      setTimeout: setTimeout.bind(window),
      clearTimeout: clearTimeout.bind(window),
      random: Math.random,
      now: Date.now,
    },
  );

  addEventListener("online", () => connection.wake());
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") connection.wake();
    if (scheduled === null) return;
    scheduled();
    scheduled = null;
    schedule();
  });
  if (data.snapshot !== undefined) {
    store.load(data.snapshot);
    touch({ all: true });
  }
  connection.open();
  return { store, touch };
}

const title = document.title;

function drawShell(store, link) {
  const known = store.stats !== null;
  const state = link !== "reconnecting" && known && !store.connected ? "unreachable" : link;
  for (const id of ["link", "notice"]) $(id).dataset.link = state;
  write($("link").firstElementChild, say(`link.${state}`));
  const hindered = ["disk_full", "paused"].find((one) => store.stats?.[one]);
  write($("notice"), words[`link.${state}.help`] ?? (hindered ? say(`fleet.${hindered}`) : ""));
  if (!known) return;
  $("simulated").hidden = ![...store.workers.values()].some((worker) => worker.simulated);
  const count = [...store.jobs.values()].filter((job) => job.state === "running" && !isNext(job)).length;
  const called = count === 0 ? title : say("app.running", { count, title: say("app.title") });
  if (document.title !== called) document.title = called;
}

function switchTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const root = document.documentElement;
  const theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  retain("theme", theme);
}

$("theme").addEventListener("click", switchTheme);
document.querySelector(".language").addEventListener("submit", ({ target }) => {
  target.elements.back.value = location.pathname + location.search + location.hash;
});
// A picture that misses its field must not take the place of the page.
for (const name of ["dragover", "drop"]) {
  addEventListener(name, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
}
