// Asks a person before something is done that hurts or cannot be undone: the dialog of ask.html.
import { bulk, explain } from "./api.js";
import { parts, write } from "./dom.js";
import { $, attempt, say, toast, words } from "./shell.js";

/** So many jobs may be named at once. */
export const MOST = 200;

/** Resolves to whether they said yes; Escape is no. yes: what the button says that does it. */
export function agreed(text, yes) {
  const dialog = $("ask");
  const part = parts(dialog);
  write(part.text, text);
  write(part.yes, yes);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Cancel, retry or delete these jobs; says of how many that was refused. Resolves to the ids it was done to. */
export async function all(verb, ids) {
  const found = { done: [], refused: [] };
  for (let at = 0; at < ids.length; at += MOST) {
    const answer = await attempt(() => bulk(verb, ids.slice(at, at + MOST)));
    if (answer === null) break;
    found.done.push(...answer.done);
    found.refused.push(...answer.refused);
  }
  const [first] = found.refused;
  if (first !== undefined) toast(say("ask.refused", { count: found.refused.length, why: explain(first, words) }));
  return found.done;
}

/** Delete jobs, if a person really wants to. going: called before they are gone, for whoever shows one of them. */
export async function forget(ids, going = () => {}) {
  if (!(await agreed(say(ids.length === 1 ? "ask.delete.one" : "ask.delete.some", { count: ids.length }), say("ask.yes")))) return [];
  const done = await all("delete", ids);
  if (done.length > 0) going(done);
  return done;
}
