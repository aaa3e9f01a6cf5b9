// One loaded clip: its waveform between two handles, what can be said of it here, and keeping it as a voice.

import { Comparison } from "./comparison.js";
import { element, icon } from "./dom.js";
import { Fault, request } from "./http.js";
import { faultInWords, say, seconds } from "./language.js";
import { base64, Peaks, SAMPLE_RATE_HZ, wavBytes, wavFile } from "./pcm.js";
import { qualityReport } from "./quality.js";
import { soundTake } from "./take.js";
import { Waveform } from "./waveform.js";

const MIN_S = 0.5;
const GOOD_S = 3;
const MAX_S = 30;
const STEP_S = 0.05;
const LONG_STEP_S = 0.5;
const CLIPPED = 32700;
const QUIET_RMS = 0.01;

let lastId = 0;

/** Fires "change" when the part or the words change, "forget", and "kept" with the new voice as detail. */
export class ClipEditor extends EventTarget {
  /** @param {Int16Array} samples at SAMPLE_RATE_HZ @param {string} name @param {import("./player.js").Player} player */
  constructor(samples, name, player) {
    super();
    this.samples = samples;
    this.name = name;
    this.player = player;
    this.durationS = samples.length / SAMPLE_RATE_HZ;
    this.startS = 0;
    this.endS = Math.min(this.durationS, MAX_S);
    const peaks = new Peaks(SAMPLE_RATE_HZ);
    peaks.add(samples);
    this.waveform = new Waveform(say("clip.waveform"));
    this.waveform.show({ peaks, durationS: this.durationS, axisS: this.durationS, positionS: this.durationS });
    this.part = element("p", { class: "clock" });
    this.check = element("p", { class: "notice", role: "status" });
    this.state = element("p", { class: "notice", role: "status" });
    this.report = element("div", { class: "report" });
    this.handles = { start: this.handle("start"), end: this.handle("end") };
    this.shades = { start: element("div", { class: "shade" }), end: element("div", { class: "shade end" }) };
    this.build();
    this.render();
  }

  build() {
    const play = element("button", { type: "button", onclick: () => this.play() });
    play.append(icon("play"), say("clip.play"));
    const forget = element("button", { type: "button", onclick: () => this.dispatchEvent(new Event("forget")) });
    forget.append(icon("remove"), say("clip.forget"));
    this.waveform.root.append(...Object.values(this.shades), ...Object.values(this.handles));
    this.transcript = this.field("clip.transcript", element("textarea", { rows: 2, maxlength: 1000 }));
    const choices = ["auto", "on", "off"].map((value) => element("option", { value }, say(`clip.denoise.${value}`)));
    this.denoise = this.field("clip.denoise", element("select", {}, ...choices));
    this.transcript.input.addEventListener("input", () => this.changed());
    this.comparison = new Comparison(this.player, (denoise) => this.form(denoise));
    this.comparison.addEventListener("report", (event) => this.report.replaceChildren(qualityReport(event.detail)));
    this.root = element(
      "div",
      { class: "editor" },
      this.waveform.root,
      this.part,
      element("div", { class: "row" }, play, forget),
      this.check,
      this.transcript.label,
      this.transcript.input,
      element("p", { class: "hint" }, say("clip.transcript.hint")),
      this.denoise.label,
      this.denoise.input,
      element("p", { class: "hint" }, say("clip.denoise.hint")),
      this.comparison.root,
      this.report,
      this.keeping(),
    );
  }

  field(key, input) {
    lastId += 1;
    input.id = `field-${lastId}`;
    return { input, label: element("label", { for: input.id }, say(key)) };
  }

  tick(key) {
    const input = element("input", { type: "checkbox" });
    return { input, label: element("label", { class: "tick" }, input, say(key)) };
  }

  keeping() {
    this.voiceName = this.field("keep.name", element("input", { type: "text", maxlength: 64, autocomplete: "off" }));
    this.consent = this.tick("keep.consent");
    this.keepButton = element("button", { type: "button", onclick: () => this.keep() }, say("keep.button"));
    const legend = element("legend", {}, say("keep"));
    const { voiceName, consent, keepButton, state } = this;
    const rows = [voiceName.label, voiceName.input, consent.label, keepButton, state];
    return element("fieldset", { class: "keep" }, legend, ...rows);
  }

  /** @param {"start" | "end"} which */
  handle(which) {
    const handle = element("div", {
      class: `handle ${which}`,
      role: "slider",
      tabindex: 0,
      "aria-label": say(`clip.${which}`),
      onkeydown: (event) => this.nudge(which, event),
    });
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
    });
    handle.addEventListener("pointermove", (event) => {
      if (handle.hasPointerCapture(event.pointerId)) this.move(which, this.waveform.timeAt(event));
    });
    return handle;
  }

  nudge(which, event) {
    const now = which === "start" ? this.startS : this.endS;
    const step = event.shiftKey ? LONG_STEP_S : STEP_S;
    const places = { ArrowLeft: now - step, ArrowRight: now + step, Home: 0, End: this.durationS };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.move(which, places[event.key]);
  }

  move(which, timeS) {
    const gap = Math.min(MIN_S, this.durationS);
    if (which === "start") this.startS = Math.max(0, Math.min(timeS, this.endS - gap));
    else this.endS = Math.min(this.durationS, Math.max(timeS, this.startS + gap));
    this.render();
    this.changed();
  }

  /** The part or the words are others now: what the server said of it is not true any more. */
  changed() {
    this.comparison.reset();
    this.report.replaceChildren();
    this.dispatchEvent(new Event("change"));
  }

  close() {
    this.comparison.close();
  }

  /** The chosen part. @returns {Int16Array} */
  get chosen() {
    return this.samples.slice(Math.round(this.startS * SAMPLE_RATE_HZ), Math.round(this.endS * SAMPLE_RATE_HZ));
  }

  get about() {
    return say("voices.clip.about", { duration: seconds(this.endS - this.startS) });
  }

  /** @returns {import("./take.js").Attachment} */
  attachment() {
    const samples = this.chosen;
    const encoded = base64(wavBytes(samples, SAMPLE_RATE_HZ));
    const file = wavFile(samples, SAMPLE_RATE_HZ);
    return { file, base64: encoded, transcript: this.words, denoise: this.denoise.input.value };
  }

  get words() {
    return this.transcript.input.value.trim();
  }

  play() {
    this.player.play(soundTake(this.chosen));
  }

  render() {
    const { startS, endS, durationS } = this;
    this.part.textContent = say("clip.part", {
      start: seconds(startS),
      end: seconds(endS),
      duration: seconds(endS - startS),
    });
    for (const [which, timeS] of [["start", startS], ["end", endS]]) {
      const handle = this.handles[which];
      handle.style.left = `${(100 * timeS) / durationS}%`;
      handle.setAttribute("aria-valuemin", "0");
      handle.setAttribute("aria-valuemax", durationS.toFixed(2));
      handle.setAttribute("aria-valuenow", timeS.toFixed(2));
      handle.setAttribute("aria-valuetext", say("unit.s", { n: timeS.toFixed(2) }));
    }
    this.shades.start.style.width = `${(100 * startS) / durationS}%`;
    this.shades.end.style.width = `${(100 * (durationS - endS)) / durationS}%`;
    const findings = judge(this.chosen);
    this.check.textContent = findings.map((key) => say(key)).join(" ");
    this.check.classList.toggle("bad", findings[0] !== "clip.check.good");
  }

  async keep() {
    const name = this.voiceName.input.value.trim();
    if (!name) return this.refuse("keep.need.name", this.voiceName.input);
    if (!this.consent.input.checked) return this.refuse("keep.need.consent", this.consent.input);
    const body = this.form(this.denoise.input.value);
    body.set("name", name);
    body.set("consent", "true");
    this.say(say("keep.busy"));
    this.keepButton.disabled = true;
    try {
      const voice = await (await request("v1/audio/voices", { method: "POST", body })).json();
      this.say(say("keep.done", { name: voice.name }));
      this.report.replaceChildren(qualityReport(voice.quality ?? {}));
      // the report may have pushed it out of sight
      this.state.scrollIntoView({ block: "nearest" });
      this.dispatchEvent(new CustomEvent("kept", { detail: voice }));
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      const cannot = error.status === 404 || error.status === 405 || error.status === 501;
      this.say(cannot ? say("keep.unsupported") : faultInWords(error), true);
    } finally {
      this.keepButton.disabled = false;
    }
    return undefined;
  }

  /** What the server needs to know of the clip. @param {"auto" | "on" | "off"} denoise */
  form(denoise) {
    const body = new FormData();
    body.set("audio_sample", wavFile(this.chosen, SAMPLE_RATE_HZ), "clip.wav");
    if (this.words) body.set("ref_text", this.words);
    body.set("denoise", denoise);
    return body;
  }

  refuse(key, input) {
    this.say(say(key), true);
    input.focus();
  }

  say(text, bad = false) {
    this.state.textContent = text;
    this.state.classList.toggle("bad", bad);
  }
}

/** What length and level alone tell, before any server has heard it. @param {Int16Array} samples @returns {string[]} */
export function judge(samples) {
  const durationS = samples.length / SAMPLE_RATE_HZ;
  const findings = [];
  if (durationS < MIN_S) findings.push("clip.check.tooshort");
  else if (durationS < GOOD_S) findings.push("clip.check.short");
  if (durationS > MAX_S) findings.push("clip.check.toolong");
  let power = 0;
  let clipped = 0;
  for (const sample of samples) {
    power += (sample / 32768) ** 2;
    if (Math.abs(sample) >= CLIPPED) clipped += 1;
  }
  if (clipped > samples.length / 2000) findings.push("clip.check.clipped");
  if (Math.sqrt(power / Math.max(1, samples.length)) < QUIET_RMS) findings.push("clip.check.quiet");
  return findings.length ? findings : ["clip.check.good"];
}
