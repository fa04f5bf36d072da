import assert from "node:assert/strict";
import { test } from "node:test";
import { Choice, moved } from "../../../../web/static/choice.js";
import { shown } from "../../../../web/static/pane.js";
import { asked, format, matches, parse, span } from "../../../../web/static/query.js";
import { members } from "../../../../web/static/groups.js";
import { Shelf } from "../../../../web/static/shelf.js";
import { candidates, tale } from "../../../../web/static/story.js";

const job = (id, created_ms, changes = {}) => ({ id, created_ms, state: "succeeded", labels: [], group: null, ...changes });
const ids = (shelf) => shelf.cards().flatMap((card) => card.jobs.map(({ id }) => id));

// ---- the shelf

test("pages and news lie newest first, each job once", () => {
  const shelf = new Shelf();
  shelf.append({ jobs: [job("c", 3), job("b", 2)], next: "n" });
  shelf.append({ jobs: [job("a", 1)], next: "" });
  shelf.put(job("d", 4));
  shelf.put(job("b", 2, { state: "failed" }));
  assert.deepEqual(ids(shelf), ["d", "c", "b", "a"]);
  assert.equal(shelf.get("b").state, "failed");
  shelf.drop("c");
  shelf.drop("stranger");
  assert.deepEqual(ids(shelf), ["d", "b", "a"]);
});

test("a job older than what was loaded comes with its page, not before", () => {
  const shelf = new Shelf();
  assert.ok(!shelf.reaches(job("x", 9)));
  shelf.append({ jobs: [job("c", 3), job("b", 2)], next: "n" });
  assert.ok(shelf.reaches(job("x", 9)) && !shelf.reaches(job("x", 1)));
  assert.ok(shelf.leads(job("x", 9)) && !shelf.leads(job("x", 2)));
  shelf.append({ jobs: [], next: "" });
  assert.ok(shelf.reaches(job("x", 1)));
});

test("what was submitted together is one card, in its own order", () => {
  const member = (index) => ({ group: { id: "g", index, size: 3 } });
  const shelf = new Shelf();
  shelf.append({ jobs: [job("z", 9), job("g2", 5, member(2)), job("g1", 5, member(1))], next: "n" });
  assert.deepEqual(shelf.cards().map((card) => card.key), ["z", "group:g"]);
  shelf.append({ jobs: [job("g0", 5, member(0)), job("a", 1)], next: "" });
  assert.deepEqual(ids(shelf), ["z", "g0", "g1", "g2", "a"]);
  assert.deepEqual([shelf.beside("g2", 1), shelf.beside("g0", -1), shelf.beside("a", 1)], ["a", "z", null]);
  assert.equal(shelf.beside("stranger", 1), null);
});

test("a group that has the id of a job is another card, and the page calls each as its first paint does", () => {
  const shelf = new Shelf();
  const member = job("m", 2, { group: { id: "a", index: 0, size: 2 } });
  shelf.append({ jobs: [member, job("a", 1)], next: "" });
  const keys = shelf.cards().map((card) => card.key);
  assert.deepEqual(keys, ["group:a", "a"]);
  assert.deepEqual(keys, [...members([member, job("a", 1)]).keys()]);
});

test("the first page again tells what is gone, as far as it reaches", () => {
  const shelf = new Shelf();
  shelf.append({ jobs: [job("d", 4), job("c", 3), job("b", 2), job("a", 1)], next: "n" });
  shelf.renew({ jobs: [job("e", 5), job("d", 4), job("b", 2)], next: "m" });
  assert.deepEqual(ids(shelf), ["e", "d", "b", "a"]);
  assert.equal(shelf.next, "n");
  shelf.renew({ jobs: [job("e", 5)], next: "" });
  assert.deepEqual(ids(shelf), ["e"]);
  assert.equal(shelf.next, "");
});

test("what was here is loaded anew where the first page does not come down to it", () => {
  const shelf = new Shelf();
  shelf.append({ jobs: [job("b", 2), job("a", 1)], next: "n" });
  shelf.doubt();
  shelf.put(job("f", 6)); // the snapshot has the newest
  shelf.renew({ jobs: [job("f", 6), job("e", 5), job("d", 4)], next: "d" });
  assert.deepEqual(ids(shelf), ["f", "e", "d"]);
  assert.equal(shelf.next, "d");
  shelf.append({ jobs: [job("c", 3), job("b", 2)], next: "b" });
  shelf.put(job("g", 7));
  shelf.doubt();
  shelf.renew({ jobs: [job("h", 8), job("g", 7)], next: "g" });
  assert.deepEqual(ids(shelf), ["h", "g", "f", "e", "d", "c", "b"]);
  assert.equal(shelf.next, "b");
});

test("of too many jobs only the newest page stays, and what lies below comes again with its pages", () => {
  const shelf = new Shelf();
  shelf.append({ jobs: [3, 2, 1].map((at) => job(`old-${at}`, at)), next: "n" });
  for (let at = 10; at < 20; at += 1) shelf.put(job(`new-${at}`, at));
  assert.equal(shelf.size, 13);
  shelf.doubt(-1);
  shelf.renew({ jobs: [job("new-19", 19), job("new-18", 18)], next: "new-18" });
  assert.deepEqual(ids(shelf), ["new-19", "new-18"]);
  assert.equal(shelf.next, "new-18");
  assert.ok(!shelf.reaches(job("new-17", 17)));
});

// ---- choosing

const order = ["a", "b", "c", "d", "e"];

test("a stretch goes from the last choice, and back again", () => {
  const choice = new Choice();
  choice.toggle("b");
  choice.stretch("d", order);
  assert.deepEqual([...choice.picked].sort(), ["b", "c", "d"]);
  choice.stretch("a", order);
  assert.deepEqual([...choice.picked].sort(), ["a", "b"]);
  choice.toggle("a");
  assert.deepEqual([...choice.picked], ["b"]);
});

test("all, none, and what is gone", () => {
  const choice = new Choice();
  choice.stretch("c", order);
  assert.deepEqual([...choice.picked], ["c"]);
  choice.all(order);
  assert.equal(choice.picked.size, 5);
  choice.retain((key) => key !== "c");
  assert.equal(choice.picked.size, 4);
  choice.none();
  assert.equal(choice.picked.size, 0);
});

test("keys move by cards, rows and screens, and stop at the ends", () => {
  const grid = { count: 8, columns: 3, rows: 2 };
  const from = (key, at) => moved(key, at, grid);
  assert.deepEqual([from("ArrowRight", 0), from("ArrowLeft", 0), from("ArrowRight", 7)], [1, 0, 7]);
  assert.deepEqual([from("ArrowDown", 1), from("ArrowUp", 4), from("ArrowUp", 1)], [4, 1, 1]);
  assert.deepEqual([from("ArrowDown", 5), from("ArrowDown", 7)], [7, 7]);
  assert.deepEqual([from("PageDown", 0), from("PageDown", 4), from("PageUp", 4)], [6, 7, 0]);
  assert.deepEqual([from("Home", 5), from("End", 0), from("x", 0)], [0, 7, null]);
  assert.equal(moved("ArrowDown", 0, { ...grid, count: 0 }), null);
});

// ---- what is in the document

const grid = { count: 100, columns: 5, row: 100, screen: 250, most: 4 };

/** What is drawn in the end, and how much of it came in each frame. */
function settled(lies, drawn) {
  const frames = [];
  let now = { ...drawn, whole: false };
  while (!now.whole) {
    const next = shown({ ...lies, drawn: now });
    const both = [Math.max(now.first, next.first), Math.min(now.last, next.last)];
    frames.push(next.last - next.first - Math.max(0, both[1] - both[0]));
    now = next;
  }
  const { whole, ...rest } = now;
  return { ...rest, frames };
}

test("of many rows those on the screen and two around them are drawn", () => {
  const none = { first: 0, last: 0 };
  const lie = (top, changes = {}) => {
    const { frames, ...rest } = settled({ ...grid, top, ...changes }, none);
    return rest;
  };
  assert.deepEqual(lie(-80), { first: 0, last: 20, skip: 0, above: 0, below: 1600 });
  assert.deepEqual(lie(1000), { first: 40, last: 75, skip: 0, above: 800, below: 500 });
  assert.deepEqual(lie(99_999), { first: 85, last: 100, skip: 0, above: 1700, below: 0 });
  assert.deepEqual(lie(0, { count: 0 }), { first: 0, last: 0, skip: 0, above: 0, below: 0 });
  assert.deepEqual(lie(0, { count: 3 }), { first: 0, last: 3, skip: 0, above: 0, below: 0 });
});

test("a few cards come in a frame, those on the screen first, and what is drawn already stays", () => {
  const steps = (top, drawn) => settled({ ...grid, top }, drawn).frames;
  const far = steps(1000, { first: 0, last: 20 });
  assert.ok(far.length > 1 && far.every((count) => count > 0 && count <= 4), far);
  const at = shown({ ...grid, top: 1000, drawn: { first: 0, last: 20 } });
  assert.deepEqual([at.first, at.last, at.whole], [50, 54, false]);
  assert.deepEqual(steps(1100, { first: 40, last: 75 }), [4, 1]);
  assert.deepEqual(steps(0, { first: 0, last: 25 }), [0]);
  assert.deepEqual(shown({ ...grid, top: 900, drawn: { first: 40, last: 75 } }).skip, 1);
});

// ---- the address

test("the address holds the filters and nothing else", () => {
  const filters = parse("?q=+a%20pier&state=failed&lang=zh&after=x");
  assert.deepEqual([filters.q, filters.state, filters.template], ["a pier", "failed", ""]);
  assert.equal(format(filters), "?q=a+pier&state=failed");
  assert.equal(format(parse("")), "");
});

test("days are asked for as moments, the last one whole", () => {
  const [since, until] = span({ from: "2026-03-01", to: "2026-03-01" });
  assert.equal(since, new Date(2026, 2, 1).getTime());
  assert.equal(until, new Date(2026, 2, 2).getTime());
  assert.deepEqual(span({ from: "yesterday", to: "" }), [null, null]);
  assert.deepEqual(span({ from: "0202-03-01", to: "" }), [0, null]);
  const query = new URLSearchParams(asked(parse("?from=2026-03-01&state=failed"), { after: "k", limit: 5 }));
  assert.deepEqual([...query.keys()], ["state", "since_ms", "after", "limit"]);
});

test("a job is let through by each filter it meets", () => {
  const one = job("a", new Date(2026, 2, 1, 12).getTime(), { template: "t", labels: ["l"], owner: "ann" });
  const let_in = (search) => matches(one, parse(search));
  for (const search of ["", "?state=succeeded,failed", "?template=t&label=l&owner=ann", "?from=2026-03-01&to=2026-03-01"]) {
    assert.ok(let_in(search), search);
  }
  for (const search of ["?state=failed", "?template=u", "?label=m", "?owner=bob", "?from=2026-03-02", "?to=2026-02-28"]) {
    assert.ok(!let_in(search), search);
  }
});

// ---- the story

const words = { "unit.ms": "{ms} ms" };
const say = (key, values = {}) => (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);

test("a story's lines say what went another way, and not what goes without saying", () => {
  const line = (what, burnt, text) => ({ at_ms: 1, what, burnt, worker: "w", text });
  const lines = [line("queued", 0, ""), line("leased", 0, "to w"), line("queued", 1, "its worker fell silent"), line("leased", 1, "to w")];
  assert.deepEqual(tale(lines, say).map(({ text, aside }) => [text, aside]), [
    ["story.queued", ""], ["story.leased", ""], ["story.requeued", "its worker fell silent"], ["story.leased", "jobs.try"],
  ]);
});

test("that a job was moved is no try of its own", () => {
  const line = (what, text) => ({ at_ms: 1, what, burnt: 0, worker: "w", text });
  const lines = [line("queued", ""), line("leased", "to v"), line("queued", "taken back: w has it done sooner"), line("leased", "to w")];
  assert.deepEqual(tale(lines, say).map(({ aside }) => aside), ["", "", "taken back: w has it done sooner", ""]);
});

test("a decision says what every worker would have needed", () => {
  const decision = {
    worker: "w",
    candidates: [
      { worker: "v", wait_ms: 9, load_ms: null, run_ms: 1, finish_ms: 10, missing_models: ["checkpoints/a"] },
      { worker: "w", wait_ms: 0, load_ms: 0, run_ms: 1, finish_ms: 1, missing_models: [] },
    ],
  };
  assert.deepEqual(candidates(decision, say), [
    { chosen: false, cells: ["v", "9 ms", "", "1 ms", "10 ms"], missing: "checkpoints/a" },
    { chosen: true, cells: ["w", "0 ms", "0 ms", "1 ms", "1 ms"], missing: "" },
  ]);
});
