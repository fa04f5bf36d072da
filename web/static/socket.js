// The connection to the fleet's events: opens it, notices when it went dead, opens it again.
// Knows frames, not jobs. The WebSocket class, the timers and the dice are passed in, so that a test can hold them.

/** The server says something at least every 10 s; so long a silence means that the connection is dead. */
const SILENCE_MS = 25_000;
/** After so long a silence a page that wakes up does not wait for the end of it: timers stand still while a machine sleeps. */
const QUIET_MS = 12_000;
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 15_000;
const NOT_SIGNED_IN = 4401;

/** How long to wait before try `tries` (from 0): full jitter under a doubling ceiling, so that pages do not herd. */
export function backoff(tries, random) {
  const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries);
  return Math.round(FIRST_WAIT_MS / 2 + random() * ceiling);
}

/**
 * A preview frame: u16 big-endian length of a JSON head, the head {id, attempt, media_type}, the picture's bytes.
 * Returns {id, attempt, blob}, or null for a frame that is none.
 */
export function preview(buffer) {
  if (buffer.byteLength < 2) return null;
  const length = new DataView(buffer).getUint16(0);
  if (buffer.byteLength < 2 + length) return null;
  const head = parse(new TextDecoder().decode(new Uint8Array(buffer, 2, length)));
  if (head === null || !/^image\/(jpeg|png|webp)$/.test(head.media_type)) return null;
  return { id: head.id, attempt: head.attempt, blob: new Blob([new Uint8Array(buffer, 2 + length)], { type: head.media_type }) };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export class Connection {
  #url;
  #on;
  #tools;
  #socket = null;
  #tries = 0;
  #waiting = null;
  #silence = null;
  #heard = 0;

  /**
   * on.message(object), on.preview({id, attempt, blob}), on.open() before the first message of each connection,
   * on.lost() when it is gone and will be tried again, on.refused() when a person has to sign in first.
   */
  constructor(url, on, tools) {
    this.#url = url;
    this.#on = on;
    this.#tools = tools;
  }

  open() {
    this.#stopWaiting();
    const socket = new this.#tools.WebSocket(this.#url);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const mine = (handle) => (event) => this.#socket === socket && handle(event);
    socket.onopen = mine(() => this.#on.open());
    socket.onmessage = mine(({ data }) => this.#receive(data));
    socket.onclose = mine(({ code }) => this.#closed(code));
    this.#listen();
    // The first message may be large, and the line slow.
    this.#heard = Infinity;
  }

  /** The page woke up, or the network came back: do not sit out the wait. */
  wake() {
    if (this.#socket !== null && this.#tools.now() - this.#heard > QUIET_MS) this.#drop();
    if (this.#waiting !== null) this.open();
  }

  send(message) {
    if (this.#socket?.readyState === this.#tools.WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #receive(data) {
    this.#listen();
    this.#heard = this.#tools.now();
    if (typeof data !== "string") {
      const found = preview(data);
      if (found !== null) this.#on.preview(found);
      return;
    }
    const message = parse(data);
    if (message === null) return;
    if (message.type === "snapshot") this.#tries = 0;
    this.#on.message(message);
  }

  #listen() {
    this.#tools.clearTimeout(this.#silence);
    this.#silence = this.#tools.setTimeout(() => this.#drop(), SILENCE_MS);
  }

  #drop() {
    const dead = this.#socket;
    this.#closed(0);
    dead.close();
  }

  #closed(code) {
    this.#socket = null;
    this.#tools.clearTimeout(this.#silence);
    if (code === NOT_SIGNED_IN) {
      this.#on.refused();
      return;
    }
    this.#on.lost();
    this.#waiting = this.#tools.setTimeout(() => this.open(), backoff(this.#tries, this.#tools.random));
    this.#tries += 1;
  }

  #stopWaiting() {
    this.#tools.clearTimeout(this.#waiting);
    this.#waiting = null;
  }
}
