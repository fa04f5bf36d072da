// What the gallery is asked for: the filters of its address, what they ask of the API, and which jobs they let through.
// Pure. web/pages/gallery.py reads the same address on the server.

/** Of the address, in its order. */
export const KEYS = ["q", "state", "template", "label", "owner", "from", "to"];

const DAY_MS = 86_400_000;

/** The filters of an address: {q, state, …}, "" for each that is not set. */
export function parse(search) {
  const given = new URLSearchParams(search);
  return Object.fromEntries(KEYS.map((key) => [key, (given.get(key) ?? "").trim()]));
}

/** The address's part for these filters, "" for none; the same filters always make the same text. */
export function format(filters) {
  const text = String(new URLSearchParams(KEYS.filter((key) => filters[key]).map((key) => [key, filters[key]])));
  return text === "" ? "" : `?${text}`;
}

/** The days as moments, where the person is: [since, until), either null. */
export function span({ from, to }) {
  // While a year is typed it is one long before any job, and the API knows no time before 1970.
  const midnight = (day) => (/^\d{4}-\d{2}-\d{2}$/.test(day) ? Math.max(0, new Date(`${day}T00:00`).getTime()) : NaN);
  const [first, last] = [midnight(from), midnight(to)];
  return [Number.isNaN(first) ? null : first, Number.isNaN(last) ? null : nextDay(last)];
}

/** Midnight after: a day that changes the clocks has 23 or 25 hours. */
function nextDay(ms) {
  const next = new Date(ms + DAY_MS + DAY_MS / 4);
  return next.setHours(0, 0, 0, 0);
}

/** What to ask the API for: the query of one page. */
export function asked(filters, { after = "", limit }) {
  const [since, until] = span(filters);
  const wanted = { q: filters.q, state: filters.state, template: filters.template, label: filters.label };
  const rest = { owner: filters.owner, since_ms: since ?? "", until_ms: until ?? "", after, limit };
  return String(new URLSearchParams(Object.entries({ ...wanted, ...rest }).filter(([, value]) => value !== "")));
}

/** Whether the job belongs to what was asked for, as far as its record tells: the words are only the server's to find. */
export function matches(job, filters) {
  const [since, until] = span(filters);
  return (
    (!filters.state || filters.state.split(",").includes(job.state)) &&
    (!filters.template || job.template === filters.template) &&
    (!filters.label || job.labels.includes(filters.label)) &&
    (!filters.owner || job.owner === filters.owner) &&
    (since === null || job.created_ms >= since) &&
    (until === null || job.created_ms < until)
  );
}
