// The form of a template in the making, as people will see it: one of the server's own fields for each kind, filled in.
import { stamp, write } from "./dom.js";

/** Fill `root` with the form of these fields; nothing in it can be used. */
export function preview(root, fields) {
  const groups = [...new Set(fields.map(({ group }) => group).filter(Boolean))];
  const made = fields.filter(({ group }) => group === "").map(blank);
  for (const group of groups) {
    const details = document.createElement("details");
    details.className = "group";
    details.open = true;
    const [summary, inner] = [document.createElement("summary"), document.createElement("div")];
    summary.textContent = group;
    inner.className = "fields";
    inner.append(...fields.filter((field) => field.group === group).map(blank));
    details.append(summary, inner);
    made.push(details);
  }
  root.replaceChildren(...made);
}

function blank(field) {
  const { type, label, help, min, max, choices } = field;
  const kind = type === "model" && !choices?.length ? "text" : type;
  const element = stamp(document.querySelector(`template[data-kind="${kind}"]`));
  for (const one of element.querySelectorAll("[id], [for], [name]")) {
    for (const name of ["id", "for", "name", "aria-describedby"]) one.removeAttribute(name);
  }
  element.querySelector("label, legend").firstChild.textContent = `${label} `;
  const bounds = element.querySelector("label > .aside");
  if (bounds !== null && min !== null && max !== null && (type === "integer" || type === "number")) {
    bounds.textContent = `${min}–${max}`;
  }
  fill(element, field);
  write(element.querySelector(".help"), help ?? "");
  return element;
}

/** What stands in the field at first. */
function fill(element, { type, default: value, choices }) {
  const control = element.querySelector("textarea, select, input");
  if (type === "image") return;
  if (type === "switch") control.checked = value === true;
  else if (control.matches("select")) control.replaceChildren(...choices.map((one) => new Option(one, one, one === value, one === value)));
  else control.value = type === "seed" ? "" : value ?? "";
}
