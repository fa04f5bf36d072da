// Which rows of a long grid are worth having in the document: those on the screen and a few around them. Pure.

/** Rows kept on each side of the screen, so that scrolling meets cards that are there. */
const SPARE = 2;
/** Cards that come in one frame, or one row if that has more: whoever jumps far sees them come, and nothing stands still. */
const MOST = 12;

/**
 * The cards to draw now, `drawn` {first, last} being those that are: {first, last, above, below, whole}. above and below
 * are the pixels of the rows left out; whole: nothing more is to come. `top` is where the screen begins, from the grid's
 * own beginning; `row` is the height of one with its gap.
 */
export function shown({ count, columns, row, top, screen, drawn }) {
  const rows = Math.ceil(count / columns);
  const head = Math.min(Math.max(0, Math.floor(top / row)), Math.max(0, rows - 1));
  const foot = Math.min(rows, Math.max(head, Math.ceil((top + screen) / row)));
  const wanted = { from: Math.max(0, head - SPARE), until: Math.min(rows, foot + SPARE) };
  let from = Math.max(wanted.from, Math.ceil(drawn.first / columns));
  let until = Math.min(wanted.until, drawn.last < count ? Math.floor(drawn.last / columns) : rows);
  if (from >= until) from = until = head;
  const whole = () => from === wanted.from && until === wanted.until;
  for (let left = Math.max(1, Math.floor(MOST / columns)); left > 0 && !whole(); left -= 1) {
    // Down to the foot of the screen, up to its head, and then what is spare.
    if (until < foot || (from <= head && until < wanted.until)) until += 1;
    else from -= 1;
  }
  const last = Math.min(count, until * columns);
  return { first: from * columns, last, above: from * row, below: (rows - until) * row, whole: whole() };
}
