// Which workers are shown, and in which order. Pure.
import { runs, standing } from "./format.js";

/** What needs a person comes first. From "joined" on all is well, and a card does not move when its worker gets a job. */
const URGENCY = ["lost", "silent", "open", "probing", "draining", "paused", "joined", "busy", "ready", "left"];

const names = new Intl.Collator("en", { numeric: true });

const load = ({ stats, held }) => stats?.gpu_busy ?? +held.some(runs);

/** Numbers to sort by, the first shown first; equal ones stand by name. */
const RANKS = {
  name: () => 0,
  state: (worker) => Math.min(URGENCY.indexOf(standing(worker)), URGENCY.indexOf("joined")),
  load: (worker) => -load(worker),
  rate: ({ jobs_per_hour: rate, succeeded }) => -(rate ?? succeeded),
  failed: ({ failed }) => -failed,
};

/** Whether every word of `query` stands somewhere in what the worker is called, is, carries or holds. */
export function matches(worker, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const { name, gpu, version, comfyui_version: comfyui, labels, resident } = worker;
  const text = [name, standing(worker), gpu.name, version, comfyui, ...labels, ...(resident ?? [])].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** The names of the workers that match, in the order `sort`; reverse turns it round, names within it stay. */
export function arrange(workers, { sort, reverse, query }) {
  // Another page may have kept a word that this one does not know.
  const rank = RANKS[sort] ?? RANKS.state;
  const sign = reverse ? -1 : 1;
  return [...workers]
    .filter((worker) => matches(worker, query))
    .map((worker) => [rank(worker), worker.name])
    .sort(([a, left], [b, right]) => sign * (sort === "name" ? names.compare(left, right) : a - b) || names.compare(left, right))
    .map(([, name]) => name);
}

/** How many workers stand how, by standing, the urgent ones first; those at nought are left out. */
export function tally(workers) {
  const counts = new Map(URGENCY.map((one) => [one, 0]));
  for (const worker of workers) counts.set(standing(worker), counts.get(standing(worker)) + 1);
  return [...counts].filter(([, count]) => count > 0);
}

/** Of `count` rows those to draw: what is seen from `top` to `bottom` (in rows, maybe broken) and some around it. */
export function span(count, top, bottom, around) {
  const first = Math.max(0, Math.min(count, Math.floor(top) - around));
  return [first, Math.max(first, Math.min(count, Math.ceil(bottom) + around))];
}
