// What this browser keeps for the next time: words by their names, and what stands in the form of a template. One that
// keeps nothing, full or closed by its settings, works all the same.

/** What was kept under this name, or null. */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function retain(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    // Next time it is as it was at first.
  }
}

const key = (template) => `form.${template}`;

/** What was kept, or null. What cannot be read counts as nothing. */
export function kept(template) {
  try {
    const found = JSON.parse(recall(key(template)));
    return typeof found?.values === "object" && Array.isArray(found.locked) ? found : null;
  } catch {
    return null;
  }
}

/** draft: {values, locked: the seeds that are to stay, count}. */
export const keep = (template, draft) => retain(key(template), JSON.stringify(draft));
