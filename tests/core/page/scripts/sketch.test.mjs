import assert from "node:assert/strict";
import { test } from "node:test";
import { Sketch, nameOf, readWorkflow } from "../../../../web/static/sketch.js";

const field = (key, input, node, changes = {}) => ({
  key, input, node, label: key, type: "text", group: "", title: `Node ${node}`, class_type: "Any", ...changes,
});
const offered = {
  fields: [
    field("seed", "seed", "3"), field("steps", "steps", "3"), field("eta", "eta", "3"),
    field("text", "text", "6"), field("text_2", "text", "7"), field("width", "width", "5"),
  ],
  results: [{ node: "9", title: "Save", class_type: "SaveImage" }, { node: "10", title: "Show", class_type: "PreviewImage" }],
};
const keys = (sketch) => sketch.chosen.map(({ key }) => key);

test("what is usually changed comes into the form at once, words before numbers", () => {
  const sketch = new Sketch({}, offered, "More");
  assert.deepEqual(keys(sketch), ["text", "text_2", "width", "steps", "seed"]);
  assert.equal(sketch.result, "9");
});

test("what most people leave as it is is folded away at once", () => {
  const folded = new Sketch({}, offered, "More").chosen.filter(({ group }) => group === "More");
  assert.deepEqual(folded.map(({ key }) => key), ["steps", "seed"]);
});

test("inputs that are called alike are told apart by their nodes", () => {
  const fields = [field("a", "text", "6", { label: "Text", title: "Prompt" }), field("b", "text", "7", { label: "Text", title: "Any" })];
  const labels = new Sketch({}, { ...offered, fields }, "More").chosen.map(({ label }) => label);
  assert.deepEqual(labels, ["Prompt", "Text"]);
});

test("fields are picked, moved, called anew and left out", () => {
  const sketch = new Sketch({}, offered, "More");
  sketch.add("eta");
  sketch.add("eta");
  sketch.move("eta", -1);
  sketch.move("text", -1);
  sketch.remove("width");
  sketch.change("text", { label: "What it shows" });
  assert.deepEqual(keys(sketch), ["text", "text_2", "steps", "eta", "seed"]);
  assert.equal(sketch.fields[0].label, "What it shows");
  assert.equal(sketch.fields[0].node, "6");
  sketch.move("seed", 1);
  assert.deepEqual(keys(sketch).at(-1), "seed");
});

test("the inputs stand by their nodes, in the order of the workflow", () => {
  const nodes = new Sketch({}, offered, "More").nodes();
  assert.deepEqual(nodes.map(({ node, fields }) => [node, fields.length]), [["3", 3], ["6", 1], ["7", 1], ["5", 1]]);
});

test("the name is made of the title until a person types one", () => {
  const sketch = new Sketch({}, offered, "More");
  sketch.title = "  Café — at night, No. 5! ";
  assert.equal(sketch.name, "cafe-at-night-no-5");
  sketch.ownName = "cafe";
  assert.equal(sketch.name, "cafe");
  assert.equal(nameOf("海报"), "");
  assert.equal(nameOf("x".repeat(80)).length, 64);
});

test("what is missing is told where it is missing", () => {
  const sketch = new Sketch({}, offered, "More");
  assert.deepEqual(Object.keys(sketch.problems([])), ["title"]);
  sketch.title = "海报";
  assert.deepEqual(Object.keys(sketch.problems([])), ["name"]);
  sketch.title = "Poster";
  assert.deepEqual(sketch.problems([]), {});
  assert.deepEqual(sketch.problems(["poster"]).name, ["templates.bad.taken", { name: "poster" }]);
  sketch.change("text", { label: " " });
  assert.deepEqual(Object.keys(sketch.problems([])), ["fields"]);
  for (const key of keys(sketch)) sketch.remove(key);
  assert.deepEqual(sketch.problems([]).fields, ["templates.bad.fields", {}]);
});

test("what is sent has the fields in the form's order, and no more of them than their words", () => {
  const sketch = new Sketch({ 3: {} }, offered, "More");
  sketch.title = " Poster ";
  sketch.change("seed", { group: "Advanced" });
  assert.deepEqual(sketch.body.fields.at(-1), { key: "seed", label: "seed", group: "Advanced" });
  assert.deepEqual({ ...sketch.body, fields: [] }, {
    name: "poster", title: "Poster", description: "", workflow: { 3: {} }, fields: [], result: "9",
  });
});

test("a text that is no workflow in API format is told apart", () => {
  const problem = (text) => readWorkflow(text).problem;
  assert.equal(problem("  "), "templates.bad.empty");
  assert.equal(problem("{"), "templates.bad.json");
  assert.equal(problem('{"nodes": [], "links": []}'), "templates.bad.editor");
  for (const text of ["[]", "7", "null", "{}", '{"a": 1}', '{"3": {"inputs": {}}}']) assert.equal(problem(text), "templates.bad.other", text);
  const workflow = { 3: { class_type: "KSampler", inputs: {} } };
  assert.deepEqual(readWorkflow(JSON.stringify(workflow)), { workflow });
});
