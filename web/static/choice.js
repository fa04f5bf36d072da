// Which cards are chosen, and which of them the keys are at. Pure: keys of cards, in the order they are given.

export class Choice {
  picked = new Set();
  /** Where the keys are. */
  at = null;
  /** Where a stretch begins that is chosen in one go. */
  #anchor = null;
  /** What the last stretch added: the next one from the same place takes it back first. */
  #stretch = [];

  /** Turn one around; the next stretch begins there. */
  toggle(key) {
    if (!this.picked.delete(key)) this.picked.add(key);
    this.#from(key);
  }

  /** Choose all from where the last choice was made to `key`. */
  stretch(key, order) {
    const [from, to] = [order.indexOf(this.#anchor ?? this.at ?? key), order.indexOf(key)];
    if (from < 0) {
      this.toggle(key);
      return;
    }
    for (const one of this.#stretch) this.picked.delete(one);
    const wanted = order.slice(Math.min(from, to), Math.max(from, to) + 1);
    this.#stretch = wanted.filter((one) => !this.picked.has(one));
    for (const one of wanted) this.picked.add(one);
    [this.#anchor, this.at] = [order[from], key];
  }

  all(order) {
    for (const key of order) this.picked.add(key);
    this.#from(this.at);
  }

  none() {
    this.picked.clear();
    this.#from(this.at);
  }

  /** Let go of cards that are not there any more. */
  retain(has) {
    for (const key of this.picked) if (!has(key)) this.picked.delete(key);
    if (this.#anchor !== null && !has(this.#anchor)) this.#from(this.at);
  }

  #from(key) {
    [this.#anchor, this.at, this.#stretch] = [key, key, []];
  }
}

/** Where a key moves to from card `at` of `count`, in rows of `columns`, `rows` to a screen; null for other keys. */
export function moved(key, at, { count, columns, rows }) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const leaps = { PageUp: -columns * rows, PageDown: columns * rows, Home: -count, End: count };
  const by = steps[key] ?? leaps[key];
  if (by === undefined || count === 0) return null;
  const to = at + by;
  if (to >= 0 && to < count) return to;
  // Down into a last row that is shorter ends at its end; another step past an end goes nowhere.
  if (key === "ArrowDown" && Math.floor(at / columns) < Math.floor((count - 1) / columns)) return count - 1;
  return key in steps ? at : Math.min(count - 1, Math.max(0, to));
}
