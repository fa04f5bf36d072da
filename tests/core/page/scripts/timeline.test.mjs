import assert from "node:assert/strict";
import { test } from "node:test";
import { bar, stretches } from "../../../../web/static/timeline.js";

const line = (at_ms, what, changes = {}) => ({ at_ms, what, attempt: 1, burnt: 0, worker: "w", text: "", ...changes });
const job = (changes) => ({
  state: "succeeded", created_ms: 0, started_ms: 130, finished_ms: 1000, worker: "w", timings: null, ...changes,
});
const timings = { staging_ms: 20, waiting_ms: 10, running_ms: 800, finishing_ms: 30 };
const parts = (found) => found.map(({ part, from_ms: from, to_ms: to }) => [part, from, to]);

test("a job that went straight through", () => {
  const lines = [line(0, "queued"), line(100, "leased"), line(120, "running"), line(1000, "succeeded")];
  assert.deepEqual(parts(stretches(job({ timings }), lines, 5000)), [
    ["queue", 0, 100], ["staging", 100, 120], ["waiting", 120, 130], ["running", 130, 930], ["finishing", 930, 1000],
  ]);
});

test("loading the models is told apart where the worker tells it", () => {
  const lines = [line(0, "queued"), line(0, "leased")];
  const found = stretches(job({ timings: { ...timings, loading_ms: 300 } }), lines, 5000);
  assert.deepEqual(parts(found).slice(2), [["loading", 30, 330], ["running", 330, 830], ["finishing", 830, 1000]]);
});

test("an attempt that came to nothing, and the wait after it", () => {
  const lines = [line(0, "queued"), line(100, "leased"), line(400, "queued", { burnt: 1 }), line(500, "leased")];
  assert.deepEqual(parts(stretches(job({ timings }), lines, 0)), [
    ["queue", 0, 100], ["lost", 100, 400], ["backoff", 400, 500],
    ["staging", 500, 520], ["waiting", 520, 530], ["running", 530, 1000],
  ]);
});

test("a job that was moved waited in the queue again, for no other try, and nothing was lost", () => {
  const lines = [line(0, "queued"), line(100, "leased"), line(400, "queued"), line(500, "leased")];
  assert.deepEqual(parts(stretches(job({ timings }), lines, 0)).slice(0, 3), [
    ["queue", 0, 100], ["moved", 100, 400], ["queue", 400, 500],
  ]);
});

test("what goes on grows until now", () => {
  const live = job({ state: "running", finished_ms: null });
  assert.deepEqual(parts(stretches(live, [line(0, "queued"), line(100, "leased")], 700)), [
    ["queue", 0, 100], ["staging", 100, 130], ["running", 130, 700],
  ]);
  const waiting = job({ state: "queued", started_ms: null, finished_ms: null });
  assert.deepEqual(parts(stretches(waiting, [], 700)), [["queue", 0, 700]]);
  assert.deepEqual(parts(stretches(waiting, [], -5)), []);
});

test("an attempt that failed is one that came to nothing", () => {
  const failed = job({ state: "failed" });
  assert.deepEqual(parts(stretches(failed, [line(0, "queued"), line(100, "leased")], 0)).at(-1), ["lost", 130, 1000]);
  const never = job({ state: "cancelled", started_ms: null });
  assert.deepEqual(parts(stretches(never, [line(0, "queued")], 0)), [["queue", 0, 1000]]);
});

test("a job that was asked for again begins where it was", () => {
  const lines = [line(0, "queued"), line(10, "leased"), line(50, "failed"), line(600, "queued"), line(700, "leased")];
  assert.deepEqual(parts(stretches(job({ timings }), lines, 0))[0], ["queue", 600, 700]);
});

test("the bar is full, and nothing on it too thin to see", () => {
  const found = bar([{ part: "a", from_ms: 0, to_ms: 1 }, { part: "b", from_ms: 1, to_ms: 100_000 }]);
  assert.equal(found[0].at, 0);
  assert.ok(found[0].width > 0.7);
  assert.ok(Math.abs(found[1].at + found[1].width - 100) < 1e-9);
  assert.deepEqual(bar([]), []);
});
