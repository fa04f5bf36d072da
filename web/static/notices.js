// Notices of the desktop when a job or a whole group is over and nobody looks at the page. Asked for by a button, kept.
import { write } from "./dom.js";
import { recall, retain } from "./draft.js";
import { isOver, jobCard, sayer } from "./format.js";

export class Notices {
  #button;
  #words;
  #say;

  constructor(button, words) {
    this.#button = button;
    this.#words = words;
    this.#say = sayer(words);
    // Browsers give them to pages that came over HTTPS, or from this machine.
    if (!("Notification" in window) || !isSecureContext) return;
    try {
      // Shows nothing; on Android, where only a service worker may, it throws. Once they are granted it would show one.
      if (Notification.permission !== "granted") new Notification("");
    } catch {
      return;
    }
    button.hidden = false;
    button.addEventListener("click", () => this.#switch());
    this.#draw();
  }

  get #on() {
    return !this.#button.hidden && recall("notices") === "on" && Notification.permission === "granted";
  }

  async #switch() {
    const wanted = !this.#on;
    if (wanted && Notification.permission !== "granted") await Notification.requestPermission();
    retain("notices", wanted ? "on" : "off");
    this.#draw();
  }

  #draw() {
    const denied = Notification.permission === "denied";
    this.#button.setAttribute("aria-pressed", String(this.#on));
    this.#button.disabled = denied;
    write(this.#button.lastElementChild, this.#say(denied ? "notices.denied" : this.#on ? "notices.on" : "notices.off"));
  }

  /** A job ended; jobs: all of its group, or itself alone. A group is told of once, when its last job ends. */
  ended(job, jobs) {
    if (!this.#on || document.visibilityState === "visible" || !jobs.every(isOver)) return;
    const { title, picture } = jobCard(job, this.#words);
    const failed = jobs.some(({ state }) => state === "failed");
    let notice;
    try {
      notice = new Notification(this.#say(failed ? "notices.failed" : "notices.done"), {
        body: title,
        icon: picture || "/static/mark.svg",
        tag: job.group?.id ?? job.id,
      });
    } catch {
      this.#button.hidden = true;
      return;
    }
    notice.onclick = () => {
      window.focus();
      location.hash = `#job-${job.id}`;
      notice.close();
    };
  }
}
