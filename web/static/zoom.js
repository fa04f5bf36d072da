// Looking closer at a picture: where it lies for each wheel, pinch, drag and key. Pure: lengths in, lengths out.
// A view is {scale, x, y}: scale 1 = the whole picture fits; x, y = how far its middle lies from the stage's, in pixels.

export const FIT = Object.freeze({ scale: 1, x: 0, y: 0 });

/** One press of + or -, one notch of a wheel. */
export const STEP = 1.25;

/** A pixel of the picture may grow to so many of the screen. */
const LARGEST_PIXEL = 8;

/**
 * How a picture lies in its stage: {stage: [w, h], fitted: [w, h], natural}, where `natural` is the scale at which one
 * pixel of it is one of the page. null where there is nothing to measure.
 */
export function measures(stage, picture) {
  if (Math.min(...stage, ...picture) <= 0) return null;
  const shrink = Math.min(stage[0] / picture[0], stage[1] / picture[1]);
  return { stage, fitted: picture.map((side) => side * shrink), natural: 1 / shrink };
}

/** The nearest view that shows something: neither smaller than fitted nor dragged out of sight. */
function kept({ scale, x, y }, { stage, fitted, natural }) {
  const most = Math.max(LARGEST_PIXEL * natural, 4);
  const size = Math.min(most, Math.max(1, scale));
  const [sideways, upward] = fitted.map((side, axis) => Math.max(0, (side * size - stage[axis]) / 2));
  const within = (at, room) => Math.min(room, Math.max(-room, at)) + 0;
  return { scale: size, x: within(x, sideways), y: within(y, upward) };
}

/** Grow by `factor`; what lies at `at`, from the stage's middle, stays there as far as the picture's edges let it. */
export function zoomed(view, factor, at, room) {
  const { scale } = kept({ ...view, scale: view.scale * factor }, room);
  const grown = scale / view.scale;
  return kept({ scale, x: at[0] - (at[0] - view.x) * grown, y: at[1] - (at[1] - view.y) * grown }, room);
}

export const panned = (view, x, y, room) => kept({ ...view, x: view.x + x, y: view.y + y }, room);

/** A double click: the whole picture's pixels for the screen's, or twice the size where that is no change; and back. */
export function toggled(view, at, room) {
  if (view.scale > 1) return FIT;
  return zoomed(FIT, room.natural > 1.05 ? room.natural : 2, at, room);
}

/** How large a pixel of the picture is on the page, in percent. */
export const percent = (view, room) => Math.round((view.scale / room.natural) * 100);
