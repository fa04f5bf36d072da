// The newest preview of each running attempt, as an address an <img> can show. Older ones are let go.

export class Previews {
  #newest = new Map();

  put(id, attempt, blob) {
    const old = this.#newest.get(id);
    this.#newest.set(id, { attempt, blob, url: null, stale: old?.url ?? old?.stale ?? null });
  }

  /** The address of the job's preview, "" if there is none. Made only when it is drawn: previews outrun the screen. */
  url(job) {
    const entry = this.#newest.get(job.id);
    if (entry === undefined || entry.attempt !== job.attempt) return "";
    if (entry.url === null) {
      entry.url = URL.createObjectURL(entry.blob);
      if (entry.stale !== null) URL.revokeObjectURL(entry.stale);
      entry.stale = null;
    }
    return entry.url;
  }

  /** Let go of the previews that `wants(id, attempt)` no longer. A picture on the screen stays there. */
  retain(wants) {
    for (const [id, { attempt, url, stale }] of this.#newest) {
      if (wants(id, attempt)) continue;
      for (const one of [url, stale]) if (one !== null) URL.revokeObjectURL(one);
      this.#newest.delete(id);
    }
  }
}
