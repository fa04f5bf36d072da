import assert from "node:assert/strict";
import { test } from "node:test";
import { Store } from "../../../../web/static/store.js";

const job = (id, changes = {}) => ({ id, state: "running", attempt: 1, finished_ms: null, progress: null, ...changes });
const worker = (name) => ({ name, held: [] });
const snapshot = (changes = {}) => ({
  type: "snapshot", serial: 7, jobs: [job("a")], workers: [worker("w")], stats: {}, connected: true, ...changes,
});

function loaded() {
  const store = new Store();
  assert.deepEqual(store.apply(snapshot()), { all: true });
  return store;
}

test("deltas that count on from the snapshot are taken", () => {
  const store = loaded();
  assert.deepEqual(store.apply({ type: "job", serial: 8, job: job("b") }), { job: "b" });
  assert.deepEqual(store.apply({ type: "worker", serial: 9, worker: worker("v") }), { worker: "v" });
  assert.deepEqual(store.apply({ type: "worker_gone", serial: 10, name: "w" }), { worker: "w" });
  assert.deepEqual(store.apply({ type: "stats", serial: 11, stats: { queued: 3 } }), { stats: true });
  assert.deepEqual(store.apply({ type: "fleet", serial: 12, connected: false }), { fleet: true });
  assert.deepEqual([...store.jobs.keys()], ["a", "b"]);
  assert.deepEqual([...store.workers.keys()], ["v"]);
  assert.deepEqual([store.stats.queued, store.connected, store.serial], [3, false, 12]);
});

test("a gap is told once, and nothing is taken until the snapshot", () => {
  const store = loaded();
  assert.deepEqual(store.apply({ type: "job", serial: 9, job: job("b") }), { gap: true });
  assert.deepEqual(store.apply({ type: "job", serial: 10, job: job("c") }), {});
  assert.deepEqual([...store.jobs.keys()], ["a"]);
  store.apply(snapshot({ serial: 10, jobs: [job("c")] }));
  assert.deepEqual(store.apply({ type: "job", serial: 11, job: job("d") }), { job: "d" });
  assert.deepEqual([...store.jobs.keys()], ["c", "d"]);
});

test("a repeated message is a gap too", () => {
  assert.deepEqual(loaded().apply({ type: "job", serial: 7, job: job("b") }), { gap: true });
});

test("a skip says that what it jumps over was merged, not lost", () => {
  const store = loaded();
  assert.deepEqual(store.apply({ type: "skip", serial: 20 }), {});
  assert.deepEqual(store.apply({ type: "job", serial: 21, job: job("b") }), { job: "b" });
});

test("ticks and words of a newer server change nothing", () => {
  const store = loaded();
  assert.deepEqual(store.apply({ type: "tick" }), {});
  assert.deepEqual(store.apply({ type: "weather", serial: 8 }), {});
  assert.deepEqual(store.apply({ type: "job", serial: 9, job: job("b") }), { job: "b" });
});

test("progress belongs to one attempt of a job that goes on", () => {
  const store = loaded();
  const progress = { fraction: 0.5 };
  const tell = (serial, id, attempt) => store.apply({ type: "progress", serial, id, attempt, progress });
  assert.deepEqual(tell(8, "a", 1), { job: "a" });
  assert.equal(store.jobs.get("a").progress, progress);
  assert.deepEqual(tell(9, "a", 2), {});
  assert.deepEqual(tell(10, "stranger", 1), {});
  store.apply({ type: "job", serial: 11, job: job("a", { state: "succeeded", finished_ms: 5 }) });
  assert.deepEqual(tell(12, "a", 1), {});
  assert.equal(store.jobs.get("a").progress, null);
});

test("previews are wanted of the running attempt alone", () => {
  const store = loaded();
  assert.ok(store.wants("a", 1));
  assert.ok(!store.wants("a", 2) && !store.wants("stranger", 1));
  store.apply({ type: "job", serial: 8, job: job("a", { state: "failed", finished_ms: 5 }) });
  assert.ok(!store.wants("a", 1));
});

test("an answer never overtakes the feed", () => {
  const store = loaded();
  assert.deepEqual(store.offer(job("new", { state: "queued" })), { job: "new" });
  assert.deepEqual(store.offer(job("a", { state: "queued" })), {});
  assert.equal(store.jobs.get("a").state, "running");
  store.await();
  assert.deepEqual(store.offer(job("a", { state: "cancelling" })), { job: "a" });
});

test("of ended jobs the oldest are let go, of others none", () => {
  const jobs = Array.from({ length: 300 }, (_, n) => job(`ended-${n}`, { state: "succeeded", finished_ms: 1000 - n }));
  const store = new Store();
  store.apply(snapshot({ jobs: [...jobs, job("live")] }));
  const change = store.apply({ type: "job", serial: 8, job: job("b", { state: "failed", finished_ms: 5000 }) });
  assert.deepEqual(change, { job: "b", dropped: "ended-299" });
  assert.equal(store.jobs.size, 301);
  assert.deepEqual(store.apply({ type: "job", serial: 9, job: job("c") }), { job: "c" });
});
