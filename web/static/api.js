// Requests to the API. Every failure is a Refusal, which `explain` puts into words for a person.
import { sayer } from "./format.js";

const BASE = "/api/v1";

/** status: 0 = no answer, and the request may or may not have been carried out. code: the API's word. */
export class Refusal extends Error {
  constructor(status, code, message, details = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
  }
}

/** Why, for a person: by the code where there is a sentence for it, else as the server put it. */
export function explain({ code, message, details }, words) {
  const key = `refused.${code}`;
  return key in words ? sayer(words)(key, { ...details, message }) : message;
}

/** A whole number beyond what a browser can hold stays as its digits: a seed must not change by being looked at. */
const exact = (_, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) ? (context?.source ?? value) : value;

export async function request(method, path, { body, headers = {}, signal } = {}) {
  const init = { method, headers: { Accept: "application/json", ...headers }, signal };
  if (body instanceof Blob) {
    init.body = body;
  } else if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  let answer;
  let json;
  try {
    answer = await fetch(BASE + path, init);
    json = JSON.parse(await answer.text(), exact);
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new Refusal(answer?.status ?? 0, "unanswered", answer ? `${answer.status} ${answer.statusText}` : cause.message);
  }
  if (answer.ok) return json;
  const { code = "", message = answer.statusText, details } = json.error ?? {};
  throw new Refusal(answer.status, code, message, details);
}

/** A key that makes a repeated submission the same job. randomUUID would want HTTPS; a LAN has none. */
export function freshKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const job = (id) => `/jobs/${encodeURIComponent(id)}`;

/** Resolves to the jobs it became: one, or a group of `count`. */
export async function submit({ template, params, title, count, key }) {
  const body = { template, params, title, ...(count > 1 ? { count } : {}) };
  const answer = await request("POST", "/jobs", { body, headers: { "Idempotency-Key": key } });
  return answer.jobs ?? [answer];
}
export const cancel = (id) => request("DELETE", job(id));
export const retry = (id) => request("POST", `${job(id)}/retry`);
export const details = (id, signal) => request("GET", job(id), { signal });
/** Where the workflow is as it was submitted, byte for byte. */
export const workflowUrl = (id) => `${BASE}${job(id)}/workflow`;
export const templates = () => request("GET", "/templates");
export const upload = (file) => request("POST", "/uploads", { body: file });
export const jobs = (query, signal) => request("GET", `/jobs?${query}`, { signal });
export const story = (id, signal) => request("GET", `${job(id)}/story`, { signal });
export const bulk = (verb, ids) => request("POST", "/jobs/bulk", { body: { verb, ids } });
export const history = (names) => request("GET", `/workers/history?names=${names.map(encodeURIComponent).join(",")}`);
export const queue = () => request("GET", "/queue");
/** verb: pause or resume. */
export const hold = (verb) => request("POST", `/queue/${verb}`);
/** verb: pause, resume, drain, probe or restart. */
export const toWorker = (name, verb) => request("POST", `/workers/${encodeURIComponent(name)}/${verb}`);
export const draftTemplate = (workflow) => request("POST", "/templates/draft", { body: { workflow } });
export const saveTemplate = (body) => request("POST", "/templates", { body });
export const deleteTemplate = (name) => request("DELETE", `/templates/${encodeURIComponent(name)}`);
