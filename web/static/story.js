// What happened to a job, in words: each line of its story as a sentence, and whom a decision weighed. Pure.
import { duration } from "./format.js";

/** What the broker adds in its own words is worth reading where something went another way than straight on. */
const TELLS_WHY = new Set(["queued", "failed", "cancelled"]);

/** The lines as {at_ms, text, aside, decision}; `at_ms` of the first is when it was submitted. */
export function tale(lines, say) {
  return lines.map(({ at_ms, what, burnt, worker, text, decision = null }, index) => {
    const key = what === "queued" && index > 0 ? "requeued" : what;
    const said = say(`story.${key}`, { worker: worker ?? say("status.somewhere") });
    const tried = what === "leased" && burnt > 0 ? say("jobs.try", { attempt: burnt + 1 }) : "";
    return { at_ms, text: said, aside: TELLS_WHY.has(what) ? text : tried, decision };
  });
}

/** The rows of a decision's table, as texts: each worker with what was expected of it, the one that got the job marked. */
export function candidates({ worker, candidates: found }, say) {
  const time = (ms) => (ms === null || ms === undefined ? "" : duration(ms, say));
  return found.map((one) => ({
    chosen: one.worker === worker,
    cells: [one.worker, time(one.wait_ms), time(one.load_ms), time(one.run_ms), time(one.finish_ms)],
    missing: one.missing_models.join(", "),
  }));
}
