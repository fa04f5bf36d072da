// Records on standard input, a language as argument, what the browser says of them on standard output.
import { readFileSync } from "node:fs";
import { counts, jobCard, workerCard } from "../../../web/static/format.js";
import { groupCard, members, place } from "../../../web/static/groups.js";
import { shot } from "../../../web/static/shot.js";
import { facts } from "../../../web/static/standing.js";

const words = JSON.parse(readFileSync(new URL(`../../../web/views/${process.argv[2]}.json`, import.meta.url)));
const found = JSON.parse(readFileSync(0)).map(({ job, worker, stats, at, together }) => [
  jobCard(job, words, at),
  place([job]),
  place(together),
  groupCard(together, words),
  groupCard(together.slice(-1), words),
  [...members([job, { ...job, id: "g" }, ...together]).values()].map((jobs) => jobs.map(({ id }) => id)),
  workerCard(worker, new Map([["known", job]]), words),
  counts(stats, [job], words),
  shot([job], words),
  shot(together, words),
  facts(worker, new Map([["known", job]]), words, job.attempt > 0),
]);
process.stdout.write(JSON.stringify(found));
