import assert from "node:assert/strict";
import { test } from "node:test";

const shown = [];

/** The button for notices in a browser with this permission, where only a service worker may show one or anybody. */
async function offered(permission, { throws = false } = {}) {
  const kept = new Map([["notices", "on"]]);
  globalThis.localStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  globalThis.window = globalThis;
  globalThis.isSecureContext = true;
  globalThis.document = { visibilityState: "hidden" };
  globalThis.Notification = class {
    static permission = permission;
    constructor(title) {
      if (throws) throw new TypeError("Illegal constructor");
      if (permission === "granted") shown.push(title);
    }
  };
  const button = { hidden: true, addEventListener() {}, setAttribute() {}, lastElementChild: { firstChild: null } };
  const { Notices } = await import("../../../../web/static/notices.js");
  return [button, new Notices(button, new Proxy({}, { get: (_, name) => String(name) }))];
}

for (const permission of ["default", "denied", "granted"]) {
  test(`it is offered where it can work, and nothing is shown for that: ${permission}`, async () => {
    const [button] = await offered(permission);
    assert.equal(button.hidden, false);
    assert.deepEqual(shown, []);
  });
}

test("it is not offered where a page may show none", async () => {
  const [button] = await offered("default", { throws: true });
  assert.equal(button.hidden, true);
});

test("it goes where only the first notice tells that", async () => {
  const [button, notices] = await offered("granted", { throws: true });
  assert.equal(button.hidden, false);
  const job = {
    id: "a", state: "succeeded", title: "a", template: null, outputs: [], created_ms: 0, group: null, can: {}, labels: [],
    progress: { fraction: 1 },
  };
  notices.ended(job, [job]);
  assert.equal(button.hidden, true);
});
