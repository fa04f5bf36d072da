import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection, backoff, preview } from "../../../../web/static/socket.js";

/** A WebSocket, its timers and its dice, all in the test's hand. */
function stage() {
  const sockets = [];
  const timers = new Map();
  const heard = [];
  class WebSocket {
    static OPEN = 1;
    constructor(url) {
      Object.assign(this, { url, readyState: 0, sent: [], closed: false });
      sockets.push(this);
    }
    send(text) {
      this.sent.push(text);
    }
    close() {
      this.closed = true;
    }
    says(message) {
      this.onmessage({ data: typeof message === "object" && !(message instanceof ArrayBuffer) ? JSON.stringify(message) : message });
    }
  }
  let ids = 0;
  const clock = { ms: 0 };
  const tools = {
    WebSocket,
    now: () => clock.ms,
    random: () => 0.5,
    setTimeout: (run, ms) => (timers.set((ids += 1), { run, ms }), ids),
    clearTimeout: (id) => timers.delete(id),
  };
  const on = Object.fromEntries(
    ["message", "preview", "open", "lost", "refused"].map((name) => [name, (value) => heard.push([name, value])]),
  );
  const connection = new Connection("ws://fleet/events", on, tools);
  connection.open();
  const fire = (ms) => {
    const [id, { run }] = [...timers].find(([, timer]) => timer.ms === ms);
    timers.delete(id);
    run();
  };
  return { connection, sockets, timers, heard, fire, clock, names: () => heard.map(([name]) => name) };
}

const frame = (head, bytes = [1, 2, 3]) => {
  const text = new TextEncoder().encode(typeof head === "string" ? head : JSON.stringify(head));
  const buffer = new ArrayBuffer(2 + text.length + bytes.length);
  new DataView(buffer).setUint16(0, text.length);
  new Uint8Array(buffer).set([...text, ...bytes], 2);
  return buffer;
};

test("a preview frame is a head and a picture", async () => {
  const found = preview(frame({ id: "a", attempt: 2, media_type: "image/jpeg" }));
  assert.deepEqual([found.id, found.attempt, found.blob.type], ["a", 2, "image/jpeg"]);
  assert.deepEqual([...new Uint8Array(await found.blob.arrayBuffer())], [1, 2, 3]);
});

test("what is no preview frame is none, and never an exception", () => {
  const heads = ["", "{", "null", "[]", '"text"', '{"media_type":"text/html"}', '{"media_type":"image/svg+xml"}'];
  for (const head of heads) assert.equal(preview(frame(head)), null, head);
  assert.equal(preview(new ArrayBuffer(0)), null);
  assert.equal(preview(new Uint8Array([0, 200, 123]).buffer), null);
});

test("messages and previews are handed on, broken ones are not", () => {
  const { sockets, heard } = stage();
  sockets[0].says({ type: "tick" });
  sockets[0].says("{not json");
  sockets[0].says(frame({ id: "a", attempt: 1, media_type: "image/png" }));
  sockets[0].says(frame("{"));
  assert.deepEqual(heard.map(([name]) => name), ["message", "preview"]);
});

test("a lost connection is opened again, after longer and longer waits", () => {
  const { sockets, timers, fire, names } = stage();
  const waits = [];
  for (let tries = 0; tries < 8; tries += 1) {
    sockets.at(-1).onclose({ code: 1006 });
    const [{ ms }] = timers.values();
    waits.push(ms);
    fire(ms);
  }
  assert.deepEqual(waits.slice(0, 3), [400, 600, 1000]);
  assert.equal(waits.at(-1), 7700);
  assert.equal(sockets.length, 9);
  assert.ok(names().every((name) => name === "lost"));
});

test("the waits begin anew only after a snapshot: an open door proves nothing", () => {
  const { sockets, timers, fire } = stage();
  const wait = () => [...timers.values()].map(({ ms }) => ms).find((ms) => ms !== 25_000);
  sockets[0].onclose({ code: 1006 });
  fire(wait());
  sockets[1].onopen();
  sockets[1].onclose({ code: 1006 });
  assert.equal(wait(), 600);
  fire(wait());
  sockets[2].says({ type: "snapshot" });
  sockets[2].onclose({ code: 1001 });
  assert.equal(wait(), 400);
});

test("full jitter, between a floor and a ceiling", () => {
  assert.equal(backoff(0, () => 0), 200);
  assert.equal(backoff(0, () => 1), 600);
  assert.equal(backoff(50, () => 1), 15_200);
});

test("silence longer than two ticks is a dead connection", () => {
  const { sockets, fire, names } = stage();
  sockets[0].onopen();
  fire(25_000);
  assert.ok(sockets[0].closed);
  assert.deepEqual(names(), ["open", "lost"]);
  sockets[0].onclose({ code: 1006 });
  sockets[0].says({ type: "tick" });
  assert.deepEqual(names(), ["open", "lost"]);
});

test("waking up does not sit out the wait, and does nothing while there is none", () => {
  const { connection, sockets } = stage();
  connection.wake();
  assert.equal(sockets.length, 1);
  sockets[0].onclose({ code: 1006 });
  connection.wake();
  assert.equal(sockets.length, 2);
});

test("waking up from a sleep does not trust a connection on which nothing came meanwhile", () => {
  const { connection, sockets, timers, clock, names } = stage();
  sockets[0].onopen();
  clock.ms += 11_000;
  sockets[0].says({ type: "tick" });
  clock.ms += 11_000;
  connection.wake();
  assert.equal(sockets.length, 1, "the next tick may still come");
  clock.ms += 3_600_000;
  connection.wake();
  assert.ok(sockets[0].closed);
  assert.deepEqual(names(), ["open", "message", "lost"]);
  assert.equal(sockets.length, 2);
  assert.deepEqual([...timers.values()].map(({ ms }) => ms), [25_000], "nothing waits besides");
  connection.wake();
  assert.equal(sockets.length, 2);
});

test("who has to sign in is not tried again", () => {
  const { sockets, timers, names } = stage();
  sockets[0].onclose({ code: 4401 });
  assert.deepEqual(names(), ["refused"]);
  assert.equal(timers.size, 0);
});

test("only an open socket is written to", () => {
  const { connection, sockets } = stage();
  connection.send({ type: "resync" });
  sockets[0].readyState = 1;
  connection.send({ type: "resync" });
  assert.deepEqual(sockets[0].sent, ['{"type":"resync"}']);
});
