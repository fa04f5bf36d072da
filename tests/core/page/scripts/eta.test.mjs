import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { about, left, sayer } from "../../../../web/static/format.js";
import { groupLeft } from "../../../../web/static/groups.js";

const say = sayer(JSON.parse(readFileSync(new URL("../../../../web/views/en.json", import.meta.url))));
const running = (changes = {}) => ({ state: "running", started_ms: 0, progress: null, ...changes });
const at = (fraction) => ({ progress: { fraction } });
const inGroup = (job, size = 2) => ({ ...job, group: { id: "g", index: 0, size } });

test("a guess is told as coarsely as it is one", () => {
  const told = [-5, 7_999, 8_000, 36_000, 59_999, 60_000, 170_000, 3_600_000].map((ms) => about(ms, say));
  assert.deepEqual(told, [
    "a few seconds", "a few seconds", "about 10 s", "about 40 s", "about 60 s", "about 1 min", "about 3 min", "about 1 h",
  ]);
});

test("nothing is guessed of a job that does not run, or of which nothing is known", () => {
  assert.equal(left({ state: "queued", started_ms: null, progress: null }, 5), null);
  assert.equal(left(running(), 5_000), null);
  assert.equal(left(running(at(0.04)), 5_000), null);
});

test("what was expected counts less the further the job is, its own pace more", () => {
  assert.equal(left(running({ expect_ms: 10_000 }), 4_000), 6_000);
  assert.equal(left(running({ expect_ms: 10_000 }), 40_000), 0);
  assert.equal(left(running(at(0.5)), 4_000), 4_000);
  assert.equal(left(running({ expect_ms: 10_000, ...at(0.5) }), 4_000), 5_000);
  assert.equal(Math.round(left(running({ expect_ms: 10_000, ...at(0.9) }), 18_000)), 1_800);
});

test("a group takes as long as its slowest job, or goes on at its pace while some of it waits", () => {
  const done = { state: "succeeded", started_ms: 0, finished_ms: 8_000, progress: null };
  assert.equal(groupLeft([inGroup(done), inGroup(running({ expect_ms: 20_000 }))], 10_000), 10_000);
  const waits = { state: "queued", started_ms: null, finished_ms: null, progress: null };
  assert.equal(groupLeft([inGroup(done), inGroup(waits)], 10_000), 10_000);
  assert.equal(groupLeft([inGroup(waits), inGroup(waits)], 10_000), null);
});
