// The picture of the viewer: looked at closer with wheel, fingers, double click and keys, dragged about, swiped away.
import { measure } from "./dom.js";
import { FIT, STEP, measures, panned, percent, toggled, zoomed } from "./zoom.js";

/** A finger that went so far sideways, in pixels, wants the next picture. */
const SWIPE = 60;
/** Shift and an arrow move the picture by so much. */
const NUDGE = 80;

export class Stage {
  #frame;
  #image;
  #told;
  #view = FIT;
  /** Fingers and buttons that are down: pointer -> where it is, from the frame's middle. */
  #down = new Map();
  #start = null;

  /** told.swiped(by): to the next (1) or the last (-1) picture. told.zoomed(percent, fits): how large it is seen now. */
  constructor(frame, image, told) {
    this.#frame = frame;
    this.#image = image;
    this.#told = told;
    frame.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    frame.addEventListener("dblclick", (event) => this.#change((room) => toggled(this.#view, this.#at(event), room)));
    frame.addEventListener("pointerdown", (event) => this.#press(event));
    frame.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, (event) => this.#lift(event));
    image.addEventListener("load", () => this.#draw());
    image.addEventListener("dragstart", (event) => event.preventDefault());
    new ResizeObserver(() => this.#change(() => FIT)).observe(frame);
  }

  get fits() {
    return this.#view.scale === 1;
  }

  /** Another picture: seen whole again. */
  reset() {
    this.#view = FIT;
    this.#draw();
  }

  grow(by) {
    this.#change((room) => zoomed(this.#view, STEP ** by, [0, 0], room));
  }

  /** Whole, or pixel for pixel. */
  toggle() {
    this.#change((room) => toggled(this.#view, [0, 0], room));
  }

  /** Take a key; returns whether it was for the picture. */
  key({ key, shiftKey: shift }) {
    const nudge = { ArrowLeft: [NUDGE, 0], ArrowRight: [-NUDGE, 0], ArrowUp: [0, NUDGE], ArrowDown: [0, -NUDGE] }[key];
    if (key === "+" || key === "=") this.grow(1);
    else if (key === "-" || key === "_") this.grow(-1);
    else if (key === "0") this.reset();
    else if (shift && nudge !== undefined) this.#change((room) => panned(this.#view, ...nudge, room));
    else return false;
    return true;
  }

  #room() {
    if (this.#image.hidden) return null;
    const { clientWidth: width, clientHeight: height } = this.#frame;
    return measures([width, height], [this.#image.naturalWidth, this.#image.naturalHeight]);
  }

  #change(change) {
    const room = this.#room();
    if (room !== null) this.#view = change(room);
    this.#draw();
  }

  #draw() {
    const room = this.#room();
    for (const [name, value] of Object.entries(this.#view)) measure(this.#image, name, value);
    this.#frame.toggleAttribute("data-close", !this.fits);
    this.#told.zoomed(room === null ? null : percent(this.#view, room), this.fits);
  }

  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.#frame.getBoundingClientRect();
    return [clientX - left - width / 2, clientY - top - height / 2];
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 33 : 1;
    // Fingers on a pad send many small steps, a wheel few large ones: both end up alike.
    const notches = Math.min(1, Math.max(-1, (event.deltaY * lines * (event.ctrlKey ? 5 : 1)) / 100));
    this.#change((room) => zoomed(this.#view, STEP ** -notches, this.#at(event), room));
  }

  #press(event) {
    if (event.button !== 0 || event.target.closest("button, a") !== null) return;
    this.#down.set(event.pointerId, this.#at(event));
    this.#start = { at: this.#at(event), fits: this.fits, fingers: Math.max(this.#down.size, this.#start?.fingers ?? 0) };
    this.#frame.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.#down.get(event.pointerId);
    if (before === undefined) return;
    const now = this.#at(event);
    const other = [...this.#down].find(([id]) => id !== event.pointerId)?.[1];
    this.#down.set(event.pointerId, now);
    if (other === undefined) {
      this.#change((room) => panned(this.#view, now[0] - before[0], now[1] - before[1], room));
      return;
    }
    const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
    const moved = [(now[0] - before[0]) / 2, (now[1] - before[1]) / 2];
    const factor = apart(now) / Math.max(1, apart(before));
    this.#change((room) => panned(zoomed(this.#view, factor, middle, room), ...moved, room));
  }

  #lift(event) {
    if (!this.#down.delete(event.pointerId) || this.#down.size > 0) return;
    const { at, fits, fingers } = this.#start;
    this.#start = null;
    const [x, y] = this.#at(event);
    const sideways = x - at[0];
    const swiped = event.pointerType === "touch" && event.type === "pointerup" && fits && fingers === 1;
    if (swiped && Math.abs(sideways) > SWIPE && Math.abs(sideways) > 2 * Math.abs(y - at[1])) {
      this.#told.swiped(sideways < 0 ? 1 : -1);
    }
  }
}
