// Which cards of a long grid are worth having in the document: those on the screen and a few rows around them. Pure.

/** Rows kept on each side of the screen, so that scrolling meets cards that are there. */
const SPARE = 2;

/**
 * The cards to draw now, `drawn` {first, last} being those that are: {first, last, skip, above, below, whole}. skip: empty
 * places before the first; above and below: pixels of the rows left out; whole: nothing more is to come. `top` is where
 * the screen begins, from the grid's own beginning; `row` is the height of one with its gap; `most` cards come at once.
 */
export function shown({ count, columns, row, top, screen, drawn, most }) {
  const rows = Math.ceil(count / columns);
  const [head, foot] = [Math.floor(top / row), Math.ceil((top + screen) / row)];
  const card = (at) => Math.min(count, Math.max(0, Math.min(at, rows)) * columns);
  const seen = { first: card(Math.min(head, rows - 1)), last: card(foot) };
  const wanted = { first: card(Math.min(head, rows - 1) - SPARE), last: card(foot + SPARE) };
  let [first, last] = [Math.max(wanted.first, drawn.first), Math.min(wanted.last, drawn.last)];
  if (first >= last) first = last = seen.first;
  let left = most;
  const take = (missing) => {
    const some = Math.min(left, Math.max(0, missing));
    left -= some;
    return some;
  };
  // Down to the foot of the screen, up to its head, and then what is spare.
  last += take(seen.last - last);
  first -= take(first - seen.first);
  last += take(wanted.last - last);
  first -= take(first - wanted.first);
  const whole = first === wanted.first && last === wanted.last;
  const [above, below] = [Math.floor(first / columns) * row, (rows - Math.ceil(last / columns)) * row];
  return { first, last, skip: first % columns, above, below, whole };
}
