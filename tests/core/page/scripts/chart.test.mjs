import assert from "node:assert/strict";
import { test } from "node:test";
import { busyShare, memoryShare, paths, sampleOf, SPAN_MS, STEP_MS, summary, Track } from "../../../../web/static/chart.js";

const sample = (at_ms, busy, changes = {}) => ({
  at_ms, gpu_busy: busy, vram_used_bytes: 6, vram_total_bytes: 24, celsius: 60, running: 0, ...changes,
});
const frame = { until: SPAN_MS, width: 180, height: 40 };

test("a line runs from the left edge, half an hour ago, to now", () => {
  const { line, area } = paths([sample(0, 0), sample(STEP_MS, 1), sample(2 * STEP_MS, 0.5)], busyShare, frame);
  assert.equal(line, "M0 40L1 0L2 20");
  assert.equal(area, "M0 40L0 40L1 0L2 20L2 40Z");
});

test("a time without a word breaks the line, and what is older than the chart is left out", () => {
  const samples = [sample(-STEP_MS, 1), sample(0, 1), sample(STEP_MS, 1), sample(10 * STEP_MS, 1)];
  assert.equal(paths(samples, busyShare, frame).line, "M0 0L1 0M9 0L10 0");
});

test("without samples there is nothing to draw and nothing to tell", () => {
  assert.deepEqual(paths([], busyShare, frame), { line: "", area: "" });
  assert.equal(summary([], busyShare), null);
  const bare = [sample(0, null, { vram_total_bytes: 0 })];
  assert.equal(paths(bare, memoryShare, frame).line, "");
  assert.equal(summary(bare, memoryShare), null);
});

test("where no driver tells how busy the card is, a running job counts", () => {
  assert.equal(busyShare(sample(0, null, { running: 2 })), 1);
  assert.equal(busyShare(sample(0, null)), 0);
  assert.equal(busyShare(sample(0, 0.3, { running: 1 })), 0.3);
});

test("the words tell now, the mean and the most", () => {
  assert.deepEqual(summary([sample(0, 0.2), sample(1, 1), sample(2, 0.6)], busyShare), { now: 60, mean: 60, most: 100 });
});

test("a worker that is silent gives no sample", () => {
  const stats = { gpu_busy: 0.5, vram_free_bytes: 4, vram_total_bytes: 24, gpu_celsius: 61 };
  const worker = { state: "busy", stats, held: [{ phase: "running" }, { phase: "staged" }] };
  assert.deepEqual(sampleOf(worker, 7), {
    at_ms: 7, gpu_busy: 0.5, vram_used_bytes: 20, vram_total_bytes: 24, celsius: 61, running: 1,
  });
  assert.equal(sampleOf({ ...worker, state: "lost" }, 7), null);
  assert.equal(sampleOf({ ...worker, stats: null }, 7), null);
});

test("the head of a track moves with every word; one sample a step is kept", () => {
  const track = new Track();
  for (const at of [0, 2_000, 4_000, STEP_MS]) track.take(sample(at, at / STEP_MS));
  assert.deepEqual(track.samples.map(({ at_ms }) => at_ms), [0, STEP_MS]);
  track.take(sample(STEP_MS + 2_000, 0.9));
  track.take(sample(STEP_MS + 4_000, 0.8));
  assert.deepEqual(track.samples.map(({ at_ms }) => at_ms), [0, STEP_MS, STEP_MS + 4_000]);
});

test("what the server kept stands before what the page saw, and nothing stands twice", () => {
  const track = new Track();
  track.take(sample(50_000, 1));
  track.precede([sample(30_000, 0), sample(40_000, 0), sample(50_000, 0)]);
  assert.deepEqual(track.samples.map(({ at_ms }) => at_ms), [30_000, 40_000, 50_000]);
});

test("a track left open for days stays as long as its chart", () => {
  const track = new Track();
  for (let at = 0; at < 1_000; at += 1) track.take(sample(at * STEP_MS, 1));
  assert.equal(track.samples.length, SPAN_MS / STEP_MS + 1);
});
