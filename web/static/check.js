// What the fields of a form take: checked as the server will. Pure.
import { checkRows } from "./rows.js";

/** Seeds are drawn below this, so that a person can read one out. */
const SEEDS = 2 ** 32;

/** The largest seed ComfyUI takes. */
const SEED_MAX = 2n ** 64n - 1n;

/** The least and the most of a number, then what it must be a multiple of. */
function inBounds(field, value) {
  if (field.min !== null && value < field.min) return { problem: "check.min", values: { min: field.min } };
  if (field.max !== null && value > field.max) return { problem: "check.max", values: { max: field.max } };
  if (field.type !== "number" && field.step !== null && value % field.step !== 0) {
    return { problem: "check.step", values: { step: field.step } };
  }
  return { value };
}

function checkNumber(field, text) {
  const value = Number(text);
  if (text === "") return { problem: "check.required" };
  if (!Number.isFinite(value)) return { problem: "check.number" };
  if (field.type === "integer" && !Number.isSafeInteger(value)) return { problem: "check.integer" };
  return inBounds(field, value);
}

/** Seeds beyond 2^53 travel as digits: a browser's numbers end there. */
function checkSeed(field, text) {
  const max = field.max === null ? SEED_MAX : BigInt(field.max);
  if (!/^\d{1,20}$/.test(text) || BigInt(text) > max) return { problem: "check.seed", values: { max } };
  return { value: Number.isSafeInteger(Number(text)) ? Number(text) : text };
}

function checkSize(field, text) {
  const sides = /^(\d{1,6})\s*[x×]\s*(\d{1,6})$/i.exec(text);
  if (sides === null) return { problem: "check.size" };
  const [width, height] = sides.slice(1).map((side) => inBounds(field, Number(side)));
  if (width.problem !== undefined) return width;
  return height.problem === undefined ? { value: `${width.value}x${height.value}` } : height;
}

/** Lengths count characters, not UTF-16 units, as the server does. */
function checkText(field, text) {
  const [have, least] = [[...text].length, field.min ?? 0];
  if ([...text.trim()].length < least) {
    return least === 1 ? { problem: "check.required" } : { problem: "check.short", values: { min: least } };
  }
  if (field.max !== null && have > field.max) return { problem: "check.long", values: { have, max: field.max } };
  if (field.type === "choice" && !field.choices?.includes(text)) return { problem: "check.choice" };
  return { value: text };
}

/** name: of a stored picture, "" for none, null for one that is on its way. */
function checkImage(field, name) {
  if (name === null) return { problem: "check.uploading" };
  const value = name || field.default;
  return value ? { value } : { problem: "check.picture" };
}

/** What the field makes of what stands in it: {value}, or {problem, values}, a key of the page's sentences. */
export function check(field, text) {
  switch (field.type) {
    case "switch":
      return { value: text };
    case "image":
      return checkImage(field, text);
    case "roles":
    case "panels":
      return checkRows(field.type, text);
    case "integer":
    case "number":
      return checkNumber(field, text.trim());
    case "seed":
      return checkSeed(field, text.trim());
    case "size":
      return checkSize(field, text.trim());
    default:
      return checkText(field, text);
  }
}

/** A fresh seed that the field takes. `random` gives 0 to below 1. */
export const drawSeed = (field, random) => Math.floor(random() * Math.min(SEEDS, (field.max ?? SEEDS) + 1));
