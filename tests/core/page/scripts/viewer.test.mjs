import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync } from "node:fs";
import { elapsed, fileName, fileSize, sayer } from "../../../../web/static/format.js";
import { before, place } from "../../../../web/static/groups.js";
import { Previews } from "../../../../web/static/previews.js";
import { settings, totals } from "../../../../web/static/facts.js";
import { sheet } from "../../../../web/static/viewer.js";

const say = sayer(JSON.parse(readFileSync(new URL("../../../../web/views/en.json", import.meta.url))));

test("settings stand in the form's order under its labels, strangers after them", () => {
  const fields = [{ key: "prompt", label: "Prompt" }, { key: "steps", label: "Steps" }, { key: "cfg", label: "Guidance" }];
  const form = { template: "t", params: { extra: [1], steps: 20, prompt: "a pier" } };
  const wanted = [["Prompt", "a pier"], ["Steps", "20"], ["extra", "[1]"]];
  assert.deepEqual(settings(form, [{ name: "t", fields }]), wanted);
  assert.deepEqual(settings(null, []), []);
  assert.deepEqual(settings({ template: "gone", params: { a: "b" } }, []), [["a", "b"]]);
});

test("a part that came several times is counted once", () => {
  const span = (part, from_ms, to_ms) => ({ part, from_ms, to_ms });
  const found = [span("queue", 0, 5), span("lost", 5, 8), span("backoff", 8, 9), span("lost", 9, 10)];
  assert.deepEqual(totals(found), [["queue", 5], ["lost", 4], ["backoff", 1]]);
});

test("the strip has a place for each picture, and one for a job without", () => {
  const image = (name) => ({ name, kind: "output", media_type: "image/png" });
  const jobs = [{ id: "a", outputs: [image("1"), image("2")] }, { id: "b", outputs: [] }];
  assert.deepEqual(sheet(jobs).map(({ id, at, file }) => [id, at, file?.name]), [
    ["a", 0, "1"], ["a", 1, "2"], ["b", 0, undefined],
  ]);
});

test("ranks are compared part by part", () => {
  assert.ok(before([0, 5, "b"], [1, 0, "a"]));
  assert.ok(before([0, 5, "a"], [0, 5, "b"]));
  assert.ok(!before([0, 5, "a"], [0, 5, "a"]));
  const live = { id: "a", state: "running", created_ms: 1, started_ms: 2 };
  assert.ok(before(place([live])[1], place([{ id: "b", state: "failed", finished_ms: null, created_ms: 9 }])[1]));
});

test("a running clock counts whole seconds and never runs backwards", () => {
  assert.deepEqual([-5, 999, 61_500].map((ms) => elapsed(ms, say)), ["0 s", "0 s", "1 min 1 s"]);
});

test("file sizes", () => {
  assert.deepEqual([840, 31_400, 1_440_000].map(fileSize), ["840 B", "31 kB", "1.4 MB"]);
  assert.deepEqual(["a b.png", "\u202egnp.exe\u0007", "灯塔.png"].map(fileName), ["a b.png", "gnp.exe", "灯塔.png"]);
  assert.equal(fileName(`${"x".repeat(200)}.png`), `${"x".repeat(32)}…xxxxxxxx.png`);
});

test("each preview's address is made when it is drawn, and let go when a newer one is", (t) => {
  const living = new Set();
  let made = 0;
  t.mock.method(URL, "createObjectURL", () => (living.add(`blob:${(made += 1)}`), `blob:${made}`));
  t.mock.method(URL, "revokeObjectURL", (url) => living.delete(url));
  const previews = new Previews();
  const job = { id: "a", attempt: 1 };
  assert.equal(previews.url(job), "");
  previews.put("a", 1, new Blob());
  previews.put("a", 1, new Blob());
  assert.equal(made, 0);
  assert.equal(previews.url(job), "blob:1");
  assert.equal(previews.url(job), "blob:1");
  assert.equal(previews.url({ id: "a", attempt: 2 }), "");
  previews.put("a", 1, new Blob());
  assert.deepEqual([...living], ["blob:1"]);
  assert.equal(previews.url(job), "blob:2");
  assert.deepEqual([...living], ["blob:2"]);
  previews.put("a", 1, new Blob());
  previews.retain(() => false);
  assert.deepEqual([...living], []);
  assert.equal(previews.url(job), "");
});

test("characters and panels stand in the settings as lines", () => {
  const characters = [{ name: "Ann", description: "red hair" }];
  const panels = [{ roles: ["Ann"], text: "opens a letter", caption: "From him?" }, { roles: [], text: "the sea", caption: "" }];
  assert.deepEqual(settings({ template: "story", params: { characters, panels } }, []), [
    ["characters", "[Ann] red hair"],
    ["panels", "[Ann] opens a letter #From him?\nthe sea"],
  ]);
});
