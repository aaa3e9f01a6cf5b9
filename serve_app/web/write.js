// The text to speak, and the two buttons.

import { byId, element, icon } from "./dom.js";
import { say } from "./language.js";
import { ReadingPreview } from "./reading.js";

const LONG = 150;
const LIMIT = 4096;
/** What the service reads as half a second of silence. */
const PAUSE = "[pause 0.5s]";
const DRAFT = "cosyvoice-draft";

export class WriteView {
  /** @param {import("./studio.js").Studio} studio */
  constructor(studio) {
    this.studio = studio;
    this.text = byId("text");
    this.reading = new ReadingPreview();
    this.text.value = sessionStorage.getItem(DRAFT) ?? "";
    const mod = navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl";
    byId("speak").append(icon("play"), say("write.speak"), element("kbd", {}, `${mod} ↵`));
    byId("stop").append(icon("stop"), say("write.stop"), element("kbd", {}, "Esc"));
    byId("footer").textContent = say("footer", { mod });
    byId("write").addEventListener("submit", (event) => {
      event.preventDefault();
      this.speak(event.timeStamp);
    });
    byId("pause").addEventListener("click", () => {
      this.text.setRangeText(PAUSE, this.text.selectionStart, this.text.selectionEnd, "end");
      this.text.focus();
      this.render();
    });
    byId("stop").addEventListener("click", () => studio.stop());
    this.text.addEventListener("input", () => this.render());
    studio.voices.addEventListener("render", () => this.render());
    studio.options.addEventListener("change", () => this.render());
    studio.player.addEventListener("change", () => this.renderStop());
    this.render();
  }

  /** Length as the server counts it: code points, composed. */
  get length() {
    return [...this.text.value.normalize("NFC")].length;
  }

  /** @param {number} startedAt when the user asked, in the clock of `performance.now()` */
  speak(startedAt) {
    const text = this.text.value;
    if (!/[\p{L}\p{N}]/u.test(text)) {
      this.advise("write.need", true);
      this.text.focus();
    } else if (this.length > LIMIT) this.text.focus();
    else if (!this.studio.options.seedIsValid) byId("seed").focus();
    else {
      const made = this.studio.speak(text, startedAt);
      this.renderStop();
      made.finally(() => this.renderStop());
    }
  }

  advise(key, bad = false) {
    byId("advice").textContent = say(key, { limit: LIMIT });
    byId("advice").classList.toggle("bad", bad);
  }

  render() {
    const { length } = this;
    sessionStorage.setItem(DRAFT, this.text.value);
    byId("count").textContent = length === 1 ? say("write.count.one") : say("write.count", { count: length });
    if (length === 0) this.advise("write.advice.empty");
    else if (length > LIMIT) this.advise("write.advice.over", true);
    else this.advise(length > LONG ? "write.advice.long" : "write.advice.good");
    this.reading.read(length > LIMIT ? "" : this.text.value.trim());
    byId("summary").textContent = this.studio.summary();
    this.renderStop();
  }

  /** Disabled for eyes and ears only: a button that loses focus when the sound ends would strand the keyboard. */
  renderStop() {
    const idle = !this.studio.player.playing && !this.studio.making;
    byId("stop").setAttribute("aria-disabled", String(idle));
  }
}
