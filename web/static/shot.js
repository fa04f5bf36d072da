// What a card of the gallery says: one job, or those of one submit. Pure. web/pages/gallery.py says the same.
import { isNext, isOver, jobCard, pictures, sayer } from "./format.js";

/** Pictures on one card. */
const TILES = 4;

/** Of several jobs the first of the first kind there is speaks for all. */
const SPEAKERS = [
  (job) => !isOver(job) && job.state !== "queued" && !isNext(job),
  (job) => !isOver(job),
  (job) => job.state === "succeeded",
  () => true,
];

/** The parts of a card. tiles: its pictures, "" where there is none yet. bar: null where nothing moves. */
export function shot(jobs, words) {
  const say = sayer(words);
  const speaker = SPEAKERS.map((kind) => jobs.find(kind)).find((job) => job !== undefined);
  const card = jobCard(speaker, words);
  const several = jobs[0].group ?? null;
  const total = several === null ? 1 : several.size;
  const ended = jobs.filter(isOver).length;
  const made = jobs.reduce((sum, job) => sum + pictures(job).length, 0);
  const done = speaker.state === "succeeded";
  let { bar, took } = card;
  let many = made > 1 ? say("jobs.many", { count: made }) : "";
  if (several !== null) {
    if (ended < total) many = say("gallery.part", { ended, total });
    const shares = jobs.map((job) => (isOver(job) ? 1 : job.progress?.fraction ?? 0));
    bar = card.bar === null ? null : shares.reduce((sum, share) => sum + share, 0) / total;
    took = "";
  }
  return {
    key: several?.id ?? jobs[0].id,
    open: jobs[0].id,
    state: speaker.state,
    title: card.title,
    badge: card.badge,
    tiles: tiles(jobs, several !== null),
    many,
    bar,
    problem: card.problem,
    status: done ? speaker.template || say("gallery.workflow") : card.status,
    aside: bar === null ? took : say("jobs.percent", { percent: Math.floor(bar * 100) }),
  };
}

/** Of one submit a picture of each job; of one job the first of its pictures. */
function tiles(jobs, several) {
  if (several) return jobs.slice(0, TILES).map((job) => pictures(job)[0]?.url ?? "");
  const found = pictures(jobs[0]).slice(0, TILES);
  return found.length === 0 ? [""] : found.map(({ url }) => url);
}
