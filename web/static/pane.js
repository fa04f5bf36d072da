// Which rows of a long grid are worth having in the document: those on the screen and a few around them. Pure.

/** Rows kept on each side of the screen, so that scrolling meets cards that are there. */
const SPARE = 2;

/**
 * The cards to draw: {first, last}, and how many pixels of rows lie `above` and `below` them. `top` is where the screen
 * begins, from the grid's own beginning; `row` is the height of one with its gap.
 */
export function shown({ count, columns, row, top, screen }) {
  const rows = Math.ceil(count / columns);
  const from = Math.min(Math.max(0, Math.floor(top / row) - SPARE), Math.max(0, rows - 1));
  const until = Math.min(rows, Math.max(from, Math.ceil((top + screen) / row) + SPARE));
  return { first: from * columns, last: Math.min(count, until * columns), above: from * row, below: (rows - until) * row };
}
