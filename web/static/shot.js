// What a card of the gallery says: one job, or those of one submit. Pure. web/pages/gallery.py says the same.
import { isNext, isOver, jobCard, pictures, sayer } from "./format.js";
import { groupCard } from "./groups.js";

/** Pictures on one card. */
const TILES = 4;

/** The parts of a card. tiles: [{id, picture}], picture "" where there is none yet. bar: null where nothing moves. */
export function shot(jobs, words) {
  const say = sayer(words);
  const [job] = jobs;
  const card = job.group ? groupCard(jobs, words) : jobCard(job, words);
  const made = jobs.reduce((sum, one) => sum + pictures(one).length, 0);
  const own = pictures(job).map(({ url }) => ({ id: job.id, picture: url }));
  // What came to nothing leaves its room to the pictures.
  const all = job.group ? card.tiles.filter((one) => one.picture || (one.id && !isOver(one))) : own;
  const tiles = all.length > 0 ? all : [{ id: job.id, picture: "" }];
  const done = card.state === "succeeded" && !job.group;
  // What a worker only holds ready is not being made yet.
  const next = !job.group && isNext(job);
  return {
    key: card.id,
    open: job.id,
    state: next ? "queued" : card.state,
    title: card.title,
    badge: card.badge,
    tiles: tiles.slice(0, TILES).map(({ id, picture }) => ({ id, picture })),
    many: made > 1 ? say("jobs.many", { count: made }) : "",
    bar: next ? null : card.bar,
    problem: card.problem ?? "",
    status: done ? job.template || say("gallery.workflow") : card.status,
    aside: next ? "" : card.percent || card.took,
  };
}
