import assert from "node:assert/strict";
import { test } from "node:test";
import { FIT, measures, panned, percent, toggled, zoomed } from "../../../../web/static/zoom.js";

// A square of 1024 in a stage of 800 by 512: fitted to 512, so that half a pixel of it is one of the page.
const room = measures([800, 512], [1024, 1024]);

test("a picture is fitted whole, whichever way it is longer", () => {
  assert.deepEqual(room.fitted, [512, 512]);
  assert.equal(room.natural, 2);
  assert.deepEqual(measures([100, 100], [50, 200]).fitted, [25, 100]);
  assert.equal(measures([0, 100], [50, 50]), null);
  assert.equal(measures([100, 100], [0, 0]), null);
});

test("what lies under the pointer stays there", () => {
  const at = [100, 40];
  const seen = ({ scale, x, y }) => [(at[0] - x) / scale, (at[1] - y) / scale];
  const near = (one, other) => one.every((value, axis) => Math.abs(value - other[axis]) < 1e-9);
  let view = zoomed(FIT, 3, at, room);
  assert.ok(near(seen(view), at));
  view = zoomed(view, 1.5, at, room);
  assert.ok(near(seen(view), at));
});

test("it is never smaller than fitted, nor larger than its pixels bear", () => {
  assert.deepEqual(zoomed(FIT, 0.1, [0, 0], room), FIT);
  assert.equal(zoomed(FIT, 1000, [0, 0], room).scale, 16);
  const tiny = measures([800, 800], [64, 64]);
  assert.equal(zoomed(FIT, 1000, [0, 0], tiny).scale, 4);
});

test("no edge is dragged into the stage", () => {
  assert.deepEqual(panned(FIT, 500, 500, room), FIT);
  const view = panned({ scale: 2, x: 0, y: 0 }, 9999, -9999, room);
  assert.deepEqual([view.x, view.y], [(1024 - 800) / 2, -(1024 - 512) / 2]);
});

test("a double click goes to the picture's own pixels and back", () => {
  const close = toggled(FIT, [0, 0], room);
  assert.equal(close.scale, 2);
  assert.equal(percent(close, room), 100);
  assert.deepEqual(toggled(close, [9, 9], room), FIT);
  assert.equal(toggled(FIT, [0, 0], measures([800, 800], [64, 64])).scale, 2);
});
