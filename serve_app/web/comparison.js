// The clip as a voice would be made of it, with its noise (A) and without (B), to be heard before one is chosen.

import { element, icon } from "./dom.js";
import { Fault, request } from "./http.js";
import { faultInWords, say } from "./language.js";
import { decodeSound, fromBase64, SAMPLE_RATE_HZ } from "./pcm.js";
import { soundTake } from "./take.js";

/** @typedef {"off" | "on"} Denoise */

const SIDES = [
  ["A", "off"],
  ["B", "on"],
];

/** Fires "report" with the server's report on the clip as detail. Both sounds are as long as each other. */
export class Comparison extends EventTarget {
  /**
   * @param {import("./player.js").Player} player
   * @param {(denoise: Denoise) => FormData} form the clip as it is trimmed now, in the fields of a registration
   */
  constructor(player, form) {
    super();
    this.player = player;
    this.form = form;
    this.closing = new AbortController();
    this.asking = new AbortController();
    /** @type {Partial<Record<Denoise, import("./take.js").Take>>} */
    this.sounds = {};
    /** What is played as soon as it is here. @type {Denoise | ""} */
    this.wanted = "";
    this.buttons = SIDES.map(([side, denoise]) => {
      const button = element("button", { type: "button", class: "choice", onclick: () => this.press(denoise) });
      button.append(icon("play"), say("clip.compare.side", { side, what: say(`clip.compare.${denoise}`) }));
      return button;
    });
    this.state = element("p", { class: "notice", role: "status" });
    const label = { class: "row", role: "group", "aria-label": say("clip.compare") };
    this.root = element("div", {}, element("div", label, ...this.buttons), this.state);
    player.addEventListener("change", () => this.render(), { signal: this.closing.signal });
    this.render();
  }

  /** Another clip, or another part of it: what was heard is that no more. */
  reset() {
    this.asking.abort();
    this.asking = new AbortController();
    if (this.playing) this.player.stop();
    this.sounds = {};
    this.wanted = "";
    this.say("");
  }

  /** Let go of everything. */
  close() {
    this.reset();
    this.closing.abort();
  }

  /** Which of the two plays. @returns {Denoise | ""} */
  get playing() {
    const { player, sounds } = this;
    const [, denoise] = SIDES.find(([, one]) => player.playing && sounds[one] && player.take === sounds[one]) ?? [];
    return denoise ?? "";
  }

  /** @param {Denoise} denoise */
  press(denoise) {
    this.player.unlock();
    if (this.playing === denoise) {
      this.wanted = "";
      this.player.stop();
    } else if (this.sounds[denoise]) {
      this.play(denoise);
    } else if (this.wanted !== denoise) {
      this.wanted = denoise;
      this.fetch(denoise);
    }
  }

  /** From where the other one is, or from the start. @param {Denoise} denoise */
  play(denoise) {
    const from = this.playing ? Math.round(this.player.positionS * SAMPLE_RATE_HZ) : 0;
    this.wanted = "";
    this.player.play(this.sounds[denoise], from);
    this.render();
  }

  /** @param {Denoise} denoise */
  async fetch(denoise) {
    const { signal } = this.asking;
    this.say(say("clip.compare.busy"));
    try {
      const init = { method: "POST", body: this.form(denoise), signal };
      const { audio, quality } = await (await request("v1/audio/voices/preview", init)).json();
      const sound = soundTake(await decodeSound(fromBase64(audio).buffer));
      if (signal.aborted) return;
      this.sounds[denoise] = sound;
      this.say("");
      this.dispatchEvent(new CustomEvent("report", { detail: quality }));
      if (this.wanted === denoise) this.play(denoise);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Fault)) throw error;
      if (this.wanted === denoise) this.wanted = "";
      const cannot = error.status === 404 || error.status === 405;
      this.say(cannot ? say("clip.compare.unsupported") : faultInWords(error), true);
    }
  }

  render() {
    const { playing } = this;
    this.buttons.forEach((button, i) => {
      const pressed = playing === SIDES[i][1];
      if (button.getAttribute("aria-pressed") === String(pressed)) return;
      button.setAttribute("aria-pressed", String(pressed));
      button.firstElementChild.replaceWith(icon(pressed ? "stop" : "play"));
    });
  }

  say(text, bad = false) {
    this.state.textContent = text;
    this.state.classList.toggle("bad", bad);
  }
}
