// The templates page: the list as the server paints it, kept true, and the bench on which new templates are made.
import * as api from "./api.js";
import { agreed } from "./ask.js";
import { parts } from "./dom.js";
import { retain } from "./draft.js";
import { Bench } from "./bench.js";
import { $, announce, attempt, data, follow, say, words } from "./shell.js";

const find = (name) => $("plans").querySelector(`[data-name="${name}"]`);

let asking = false;

/** The fleet or the list changed: the server says anew what there is, and what can run. */
async function reconsider() {
  if (asking) return;
  asking = true;
  const answer = await fetch(location.pathname).catch(() => null);
  if (answer?.ok) {
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["plans", "no-plans"]) $(id).replaceWith(fresh.getElementById(id));
  }
  asking = false;
}

async function remove(name) {
  const title = parts(find(name)).title.textContent;
  if (!(await agreed(say("templates.ask.delete", { title }), say("templates.delete")))) return;
  if ((await attempt(() => api.deleteTemplate(name))) === null) return;
  announce(say("templates.said.deleted", { title }));
  await reconsider();
  $("main").focus();
}

$("list").addEventListener("click", ({ target }) => {
  const name = target.closest("[data-name]")?.dataset.name;
  if (target.closest("[data-use]") !== null) retain("template", name);
  else if (target.closest("[data-delete]") !== null) remove(name);
});

follow({
  draw() {},
  message(message, before) {
    const came = message.type === "worker" && message.worker.state === "ready";
    const back = before === undefined || before.state === "joined" || before.state === "lost";
    if ((came && back) || message.type === "worker_gone") reconsider();
  },
});

// ---- the bench

if (data.admin) {
  const bench = new Bench($("bench"), words, {
    taken: () => Array.from($("plans").children, (one) => one.dataset.name),
    async saved({ name, title }) {
      await reconsider();
      show("list");
      announce(say("templates.said.saved", { title }));
      find(name)?.querySelector("[data-use], [data-delete]").focus();
    },
    closed: () => show("list"),
  });

  const show = (which) => {
    $("list").hidden = which !== "list";
    $("bench").hidden = which !== "bench";
    if ((location.hash === "#add") !== (which === "bench")) {
      history.pushState(null, "", which === "bench" ? "#add" : location.pathname);
    }
    if (which === "bench") bench.open();
  };

  $("add").addEventListener("click", () => show("bench"));
  addEventListener("popstate", () => show(location.hash === "#add" ? "bench" : "list"));
  if (location.hash === "#add") show("bench");
}
