// Requests to the API. Every failure is a Refusal whose text can be shown to a person.

const BASE = "/api/v1";

/** status: of the answer; 0 = there was none, and the request may or may not have been carried out. */
export class Refusal extends Error {
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

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
    json = await answer.json();
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new Refusal(answer?.status ?? 0, answer ? `${answer.status} ${answer.statusText}` : cause.message);
  }
  if (!answer.ok) throw new Refusal(answer.status, json.error?.message ?? answer.statusText, json.error?.details);
  return json;
}

/** A key that makes a repeated submission the same job. randomUUID would want HTTPS; a LAN has none. */
export function freshKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const job = (id) => `/jobs/${encodeURIComponent(id)}`;

export const submit = (template, params, title, key) =>
  request("POST", "/jobs", { body: { template, params, title }, headers: { "Idempotency-Key": key } });
export const cancel = (id) => request("DELETE", job(id));
export const retry = (id) => request("POST", `${job(id)}/retry`);
export const details = (id, signal) => request("GET", job(id), { signal });
export const templates = () => request("GET", "/templates");
export const upload = (file) => request("POST", "/uploads", { body: file });
