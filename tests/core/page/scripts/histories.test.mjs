import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Refusal } from "../../../../web/static/api.js";
import { Histories } from "../../../../web/static/histories.js";

const sample = (at_ms) => ({ at_ms, gpu_busy: 0.5, vram_used_bytes: 1, vram_total_bytes: 2, celsius: 60, running: 0 });
const names = (count) => Array.from({ length: count }, (_, at) => `w${at}`);

/** Let promises that are settled go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

function made(answer) {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const asked = [];
  const changed = [];
  const histories = new Histories(async (some) => {
    asked.push(some);
    return answer(some);
  }, (name) => changed.push(name));
  return { histories, asked, changed };
}

const told = (some) => ({ now_ms: 1_000_000, workers: Object.fromEntries(some.map((name) => [name, [sample(999_000)]])) });

test("workers that come into sight together are asked for together, fifty at a time", async (t) => {
  t.after(() => mock.timers.reset());
  const { histories, asked, changed } = made(told);
  histories.watch(names(60));
  for (let turn = 0; turn < 2; turn += 1) {
    mock.timers.tick(60);
    await settle();
  }
  assert.deepEqual(asked.map((some) => some.length), [50, 10]);
  assert.equal(changed.length, 60);
  histories.watch(names(60));
  mock.timers.tick(60);
  assert.equal(asked.length, 2);
});

test("what is refused is asked for again, and what left the window is not", async (t) => {
  t.after(() => mock.timers.reset());
  let refused = true;
  const { histories, asked } = made((some) => {
    if (refused) throw new Refusal(503, "broker_away", "away");
    return told(some);
  });
  histories.watch(["a", "b"]);
  mock.timers.tick(60);
  await settle();
  refused = false;
  histories.watch(["b"]);
  mock.timers.tick(10_000);
  await settle();
  assert.deepEqual(asked, [["a", "b"], ["b"]]);
  assert.deepEqual(histories.samples("b").map(({ at_ms }) => at_ms), [999_000]);
  assert.deepEqual(histories.samples("a"), []);
});

test("time is the server's, and what the page saw goes on where the server ended", async (t) => {
  t.after(() => mock.timers.reset());
  const { histories } = made((some) => ({ ...told(some), now_ms: 1_500_000, workers: { a: [sample(1_490_000)] } }));
  histories.watch(["a"]);
  mock.timers.tick(60);
  await settle();
  assert.equal(histories.now, 1_500_000);
  const stats = { gpu_busy: 1, vram_free_bytes: 0, vram_total_bytes: 2, gpu_celsius: 1 };
  histories.take({ name: "a", state: "busy", stats, held: [] });
  assert.deepEqual(histories.samples("a").map(({ at_ms }) => at_ms), [1_490_000, 1_500_000]);
  histories.refresh();
  mock.timers.tick(60);
  await settle();
  assert.deepEqual(histories.samples("a").map(({ at_ms }) => at_ms), [1_490_000, 1_500_000]);
});
