import assert from "node:assert/strict";
import { test } from "node:test";
import { arrange, matches, span, tally } from "../../../../web/static/roster.js";
import { standing } from "../../../../web/static/format.js";

const worker = (name, changes = {}) => ({
  name, state: "ready", paused: false, gpu: { name: "NVIDIA GeForce RTX 4090" }, version: "0.1.0", comfyui_version: "0.3.64",
  labels: [], held: [], stats: null, succeeded: 0, failed: 0, ...changes,
});
const by = (sort, changes = {}) => ({ sort, reverse: false, query: "", ...changes });

test("a breaker and a pause say more than that a worker is ready", () => {
  assert.equal(standing(worker("a", { breaker: { state: "open" }, paused: true })), "open");
  assert.equal(standing(worker("a", { breaker: { state: "closed" }, paused: true })), "paused");
  assert.equal(standing(worker("a", { state: "lost", breaker: { state: "open" } })), "lost");
  assert.equal(standing(worker("a", { breaker: null, state: "busy", paused: true })), "busy");
});

test("a worker whose ComfyUI is silent is not ready", () => {
  const stats = { comfy_alive: false };
  assert.equal(standing(worker("a", { stats })), "silent");
  assert.equal(standing(worker("a", { stats, state: "joined" })), "joined");
  assert.equal(standing(worker("a", { stats, state: "lost" })), "lost");
});

test("names are sorted as people count", () => {
  const all = ["w10", "w2", "w1"].map((name) => worker(name));
  assert.deepEqual(arrange(all, by("name")), ["w1", "w2", "w10"]);
  assert.deepEqual(arrange(all, by("name", { reverse: true })), ["w10", "w2", "w1"]);
});

test("what needs a person comes first, and names break the tie either way", () => {
  const all = [worker("b"), worker("a"), worker("c", { state: "lost" }), worker("d", { breaker: { state: "open" } })];
  assert.deepEqual(arrange(all, by("state")), ["c", "d", "a", "b"]);
  assert.deepEqual(arrange(all, by("state", { reverse: true })), ["a", "b", "d", "c"]);
});

test("a worker that gets a job stays where it stands", () => {
  assert.deepEqual(arrange([worker("b", { state: "busy" }), worker("a"), worker("c")], by("state")), ["a", "b", "c"]);
});

test("the busiest card comes first; where no driver tells, one that runs a job", () => {
  const all = [
    worker("a", { held: [{ phase: "staged" }] }),
    worker("b", { stats: { gpu_busy: 0.4, comfy_alive: true } }),
    worker("c", { held: [{ phase: "running" }] }),
  ];
  assert.deepEqual(arrange(all, by("load")), ["c", "b", "a"]);
});

test("the filter wants every word, wherever it stands", () => {
  const one = worker("studio-1", { labels: ["fast"], resident: ["checkpoints/juggernautXL.safetensors"] });
  for (const query of ["", "  ", "STUDIO", "4090 fast", "jugger 0.3.64", "ready"]) assert.ok(matches(one, query), query);
  for (const query of ["studio-2", "4090 slow"]) assert.ok(!matches(one, query), query);
});

test("workers are counted by how they stand, the urgent ones first", () => {
  const all = [worker("a"), worker("b"), worker("c", { state: "busy" }), worker("d", { state: "lost" })];
  assert.deepEqual(tally(all), [["lost", 1], ["busy", 1], ["ready", 2]]);
  assert.deepEqual(tally([]), []);
});

test("the rows to draw are those in sight and some around them, and never more than there are", () => {
  assert.deepEqual(span(1_000, 100.5, 120.2, 10), [90, 131]);
  assert.deepEqual(span(1_000, -50, 20, 10), [0, 30]);
  assert.deepEqual(span(1_000, 990, 1_010, 10), [980, 1_000]);
  assert.deepEqual(span(5, 400, 420, 10), [5, 5]);
  assert.deepEqual(span(0, 0, 20, 10), [0, 0]);
});
