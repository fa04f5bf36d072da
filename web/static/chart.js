// Small charts of one worker: shares from 0 to 1 over the last half hour, as the path data of an SVG, and in words.
// Pure: no document and no clock. A sample is {at_ms, gpu_busy, vram_used_bytes, vram_total_bytes, celsius, running}.

/** From one kept sample to the next, and how far back a chart reaches; the server keeps as much. */
export const STEP_MS = 10_000;
export const SPAN_MS = 1_800_000;

/** So long without a sample is a time of which nothing is known: the line is broken there. */
const GAP_MS = 3.5 * STEP_MS;

/** The sample that a worker's own record makes, or null while it tells nothing. */
export function sampleOf({ stats, state, held }, at_ms) {
  if (stats === null || state === "lost" || state === "left") return null;
  return {
    at_ms,
    gpu_busy: stats.gpu_busy,
    vram_used_bytes: Math.max(0, stats.vram_total_bytes - stats.vram_free_bytes),
    vram_total_bytes: stats.vram_total_bytes,
    celsius: stats.gpu_celsius,
    running: held.filter(({ phase }) => phase === "running" || phase === "finishing").length,
  };
}

/** How busy the card was: as its driver says, and where none tells, whether a job ran. */
export const busyShare = (sample) => sample.gpu_busy ?? Math.min(1, sample.running);

/** How full its memory was; null for a machine without a card. */
export const memoryShare = ({ vram_used_bytes: used, vram_total_bytes: total }) => (total > 0 ? used / total : null);

/** The samples of one worker: what the server kept, then what the page sees itself. */
export class Track {
  #samples = [];
  /** The newest sample, between two kept ones: the chart's head moves with every word of the worker. */
  #head = null;

  /** The samples with the newest last. */
  get samples() {
    return this.#head === null ? this.#samples : [...this.#samples, this.#head];
  }

  /** Samples from before this page looked. */
  precede(older) {
    const first = this.#samples[0]?.at_ms ?? this.#head?.at_ms ?? Infinity;
    this.#samples = [...older.filter(({ at_ms }) => at_ms < first), ...this.#samples];
  }

  take(sample) {
    const last = this.#samples.at(-1);
    const kept = last === undefined || sample.at_ms - last.at_ms >= STEP_MS;
    this.#head = kept ? null : sample;
    if (kept) this.#samples.push(sample);
    while (this.#samples[0].at_ms < sample.at_ms - SPAN_MS) this.#samples.shift();
  }
}

/** Runs of points {x, y} without a gap; `share` gives a sample's height, null where it has none. */
function runs(samples, share, { until, width, height }) {
  const found = [];
  let last = -Infinity;
  for (const sample of samples) {
    const value = share(sample);
    if (value === null || sample.at_ms < until - SPAN_MS) continue;
    if (sample.at_ms - last > GAP_MS) found.push([]);
    last = sample.at_ms;
    const x = width * (1 - (until - sample.at_ms) / SPAN_MS);
    found.at(-1).push({ x: round(x), y: round(height * (1 - value)) });
  }
  return found;
}

const round = (number) => Math.round(number * 10) / 10;
const through = (points) => points.map(({ x, y }) => `${x} ${y}`).join("L");

/**
 * The path data of a chart that ends at `until`: {line, area}, "" where there is nothing to draw. A lone sample is a
 * short dash, for a point has no length.
 */
export function paths(samples, share, frame) {
  const pieces = runs(samples, share, frame).map((points) =>
    points.length > 1 ? points : [{ x: round(points[0].x - 1), y: points[0].y }, points[0]],
  );
  return {
    line: pieces.map((points) => `M${through(points)}`).join(""),
    area: pieces
      .map((points) => `M${points[0].x} ${frame.height}L${through(points)}L${points.at(-1).x} ${frame.height}Z`)
      .join(""),
  };
}

/** What a chart shows, for whom it cannot show it: {now, mean, most} in per cent, null where nothing is known. */
export function summary(samples, share) {
  const values = samples.map(share).filter((value) => value !== null);
  if (values.length === 0) return null;
  const percent = (value) => Math.round(value * 100);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return { now: percent(values.at(-1)), mean: percent(mean), most: percent(Math.max(...values)) };
}
