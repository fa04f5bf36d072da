// A field that takes a picture: chosen, dropped or pasted, and stored on the server at once, so that sending is quick.
import { Refusal, explain, upload } from "./api.js";
import { onDrop, parts, show, write } from "./dom.js";
import { fileName, sayer } from "./format.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];

export class Picture {
  #part;
  #words;
  #say;
  #told;
  #name = "";
  #busy = false;
  /** Counts the pictures taken: the answer for an earlier one comes too late. */
  #turn = 0;

  /** told({problem, values}) hears how each picture fared; {} means well. */
  constructor(element, words, told) {
    this.#part = parts(element);
    this.#words = words;
    this.#say = sayer(words);
    this.#told = told;
    element.querySelector("input").addEventListener("change", ({ target }) => {
      if (target.files.length > 0) this.take(target.files[0]);
      target.value = "";
    });
    // One that was kept may be gone, or not for this person.
    this.#part.picture.addEventListener("error", () => this.put(""));
    onDrop(element, (file) => this.take(file));
    element.addEventListener("dragover", () => (element.dataset.over = ""));
    for (const name of ["dragleave", "drop"]) element.addEventListener(name, () => delete element.dataset.over);
  }

  /** The name to send; "" for none, null while it is on its way. */
  get value() {
    return this.#busy ? null : this.#name;
  }

  /** Hold a stored picture by the name it is sent with; "" holds none. */
  put(name) {
    this.#turn += 1;
    this.#busy = false;
    this.#name = typeof name === "string" ? name : "";
    const stored = /^([0-9a-f]{64})\.\w+$/.exec(this.#name);
    show(this.#part.picture, stored === null ? "" : `/api/v1/files/${stored[1]}`, "");
    this.#note(this.#say(this.#name === "" ? "field.picture" : "field.kept"));
  }

  async take(file) {
    const turn = ++this.#turn;
    const called = fileName(file.name);
    const known = KINDS.includes(file.type);
    this.#busy = known;
    this.#name = "";
    show(this.#part.picture, "", "");
    this.#note(known ? this.#say("field.uploading", { name: called }) : this.#say("field.picture"));
    this.#told(known ? {} : { problem: "check.kind", values: { name: called } });
    if (!known) return;
    const result = await this.#stored(file);
    if (turn !== this.#turn) return;
    this.#busy = false;
    this.#told(result);
    if (result.problem !== undefined) this.#note(this.#say("field.picture"));
  }

  async #stored(file) {
    const turn = this.#turn;
    try {
      const { name, sha256, width, height } = await upload(file);
      if (turn !== this.#turn) return {};
      this.#name = name;
      const called = fileName(file.name);
      show(this.#part.picture, `/api/v1/files/${sha256}`, called);
      this.#note(this.#say("field.uploaded", { name: called, width, height }));
      return {};
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      return { problem: "check.upload", values: { why: explain(cause, this.#words) } };
    }
  }

  #note(text) {
    write(this.#part.note, text);
  }
}
