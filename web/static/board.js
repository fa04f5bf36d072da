// Whose jobs wait and run, and for which models: two small tables of the fleet page, asked of the server now and then.

/** Rows of each table; the others are counted. */
const ROWS = 6;

export class Board {
  #tables;
  #none;
  #say;

  /** tables: {owners, models}; none: what stands there while nothing waits. */
  constructor(tables, none, say) {
    this.#tables = tables;
    this.#none = none;
    this.#say = say;
  }

  /** What GET /queue answered. */
  draw({ owners, models }) {
    const { owners: by_owner, models: by_model } = this.#tables;
    rows(by_owner, owners.map(({ owner, ...counts }) => ({ name: owner, ...counts })), this.#say);
    const name = (files) => files.map((file) => file.slice(file.lastIndexOf("/") + 1)).join(", ");
    rows(by_model, models.map(({ models: all, ...counts }) => ({ name: name(all) || this.#say("fleet.models.none"), ...counts })), this.#say);
    this.#none.hidden = !by_owner.hidden || !by_model.hidden;
  }
}

function rows(table, all, say) {
  const sorted = all.filter(({ queued, running }) => queued + running > 0).sort(
    (a, b) => b.queued + b.running - (a.queued + a.running) || a.name.localeCompare(b.name),
  );
  const rest = sorted.splice(ROWS);
  if (rest.length > 0) {
    const sum = (key) => rest.reduce((total, one) => total + one[key], 0);
    sorted.push({ name: say("fleet.others", { count: rest.length }), queued: sum("queued"), running: sum("running") });
  }
  table.hidden = sorted.length === 0;
  table.tBodies[0].replaceChildren(...sorted.map(row));
}

function row({ name, queued, running }) {
  const element = document.createElement("tr");
  element.append(Object.assign(document.createElement("th"), { scope: "row", title: name, textContent: name }));
  for (const count of [running, queued]) element.insertCell().textContent = count;
  return element;
}
