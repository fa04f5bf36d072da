import assert from "node:assert/strict";
import { test } from "node:test";
import { check, drawSeed } from "../../../../web/static/check.js";

const field = (type, changes = {}) => ({ type, min: null, max: null, step: null, choices: null, ...changes });
const problem = (...given) => check(...given).problem;

test("texts are held to their lengths, counted in characters", () => {
  const prompt = field("longtext", { min: 1, max: 5 });
  assert.deepEqual(check(prompt, " 🙂🙂🙂 "), { value: " 🙂🙂🙂 " });
  assert.equal(problem(prompt, "   "), "check.required");
  assert.deepEqual(check(prompt, "123456"), { problem: "check.long", values: { have: 6, max: 5 } });
  assert.equal(problem(field("text", { min: 3 }), "ab "), "check.short");
  assert.deepEqual(check(field("longtext"), ""), { value: "" });
});

test("whole numbers", () => {
  const steps = field("integer", { min: 1, max: 150, step: 5 });
  assert.deepEqual(check(steps, " 20 "), { value: 20 });
  assert.deepEqual(
    ["", "x", "2.5", "0", "151", "7", "1e999", "9007199254740993"].map((text) => problem(steps, text)),
    ["check.required", "check.number", "check.integer", "check.min", "check.max", "check.step", "check.number", "check.integer"],
  );
});

test("numbers; their step is a hint", () => {
  const cfg = field("number", { min: 0, max: 30, step: 0.5 });
  assert.deepEqual(check(cfg, "7.3"), { value: 7.3 });
  assert.equal(problem(cfg, "-0.1"), "check.min");
  assert.equal(problem(cfg, "NaN"), "check.number");
});

test("seeds up to the last one ComfyUI takes, the large ones as digits", () => {
  assert.deepEqual(check(field("seed"), "0"), { value: 0 });
  assert.deepEqual(check(field("seed"), "9007199254740991"), { value: 9007199254740991 });
  assert.deepEqual(check(field("seed"), "18446744073709551615"), { value: "18446744073709551615" });
  for (const text of ["18446744073709551616", "-1", "1.5", "", "0x10", "1e3"]) {
    assert.equal(problem(field("seed"), text), "check.seed", text);
  }
});

test("sizes, preset or typed", () => {
  const size = field("size", { min: 64, max: 2048, step: 8, choices: ["1024x1024"] });
  assert.deepEqual(check(size, "1024x1024"), { value: "1024x1024" });
  assert.deepEqual(check(size, " 640 × 512 "), { value: "640x512" });
  assert.deepEqual(
    ["", "1024", "axb", "32x64", "64x4096", "65x64"].map((text) => problem(size, text)),
    ["check.size", "check.size", "check.size", "check.min", "check.max", "check.step"],
  );
});

test("a choice is one of those offered; a model may be any name", () => {
  assert.equal(problem(field("choice", { choices: ["euler"] }), "ddim"), "check.choice");
  assert.deepEqual(check(field("choice", { choices: ["euler"] }), "euler"), { value: "euler" });
  assert.deepEqual(check(field("model", { choices: ["a"] }), "b"), { value: "b" });
});

test("a fresh seed can be read out", () => {
  assert.equal(drawSeed(field("seed"), () => 0), 0);
  assert.equal(drawSeed(field("seed"), () => 1 - Number.EPSILON), 2 ** 32 - 1);
  assert.equal(drawSeed(field("seed", { max: 7 }), () => 1 - Number.EPSILON), 7);
});

test("a seed of a node that takes fewer", () => {
  const seed = field("seed", { max: 2147483647 });
  assert.deepEqual(check(seed, "2147483647"), { value: 2147483647 });
  assert.equal(problem(seed, "2147483648"), "check.seed");
});

test("a picture is there, is missing or is on its way", () => {
  const picture = field("image", { default: null });
  assert.deepEqual(check(picture, "ab.png"), { value: "ab.png" });
  assert.deepEqual([check(picture, ""), check(picture, null)].map((one) => one.problem), ["check.picture", "check.uploading"]);
});

test("rows are trimmed to one line; what is wrong is told of each", () => {
  const ann = { name: " Ann ", description: "red\nhair" };
  assert.deepEqual(check(field("roles"), [ann]), { value: [{ name: "Ann", description: "red hair" }] });
  const { problem, rows } = check(field("roles"), [ann, ann, { name: "[B]", description: "x" }, { name: "C", description: " " }]);
  assert.equal(problem, "check.rows");
  assert.deepEqual(rows.map((row) => [row.part, row.problem]), [
    [undefined, undefined],
    ["name", "check.twice"],
    ["name", "check.signs"],
    ["description", "check.required"],
  ]);
});

test("a panel needs what happens, but no caption", () => {
  const panel = { roles: ["Ann"], text: "opens [Ben] a letter", caption: "" };
  assert.deepEqual(check(field("panels"), [panel]), { value: [panel] });
  assert.equal(check(field("panels"), [{ ...panel, text: "x".repeat(1001) }]).rows[0].problem, "check.long");
  assert.equal(check(field("panels"), [{ ...panel, caption: "a #" }]).rows[0].problem, "check.signs");
});
