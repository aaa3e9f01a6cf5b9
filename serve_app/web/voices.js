// The voices of the server, and the reference clip as one more choice beside them.

import { byId, element, icon } from "./dom.js";
import { connection, Fault, request } from "./http.js";
import { faultInWords, say } from "./language.js";

/** The value of the choice that stands for the reference clip; no voice id has a space in front. */
const CLIP = " clip";
const REMEMBERED = "cosyvoice-voice";

/** @typedef {{id: string, name: string, type: string, language?: string}} Voice */

/** Fires "change" when another voice is chosen. */
export class VoiceList extends EventTarget {
  constructor() {
    super();
    /** @type {Voice[]} */
    this.voices = [];
    /** @type {{name: string, about: string} | null} */
    this.clip = null;
    this.chosen = sessionStorage.getItem(REMEMBERED) ?? "";
    this.stale = true;
    this.root = byId("voices");
    this.root.addEventListener("change", (event) => this.choose(event.target.value));
    connection.addEventListener("reached", () => this.stale && this.load());
    this.report(say("voices.loading"));
  }

  async load() {
    this.stale = false;
    try {
      const listing = await (await request("v1/audio/voices")).json();
      this.voices = listing.voices;
      this.report(this.voices.length ? "" : say("voices.none"));
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.stale = error.code === "unreachable";
      this.report(say("voices.failed", { fault: faultInWords(error) }));
    }
    this.render();
  }

  report(text) {
    byId("voices-state").textContent = text;
  }

  /** @param {string} value */
  choose(value) {
    this.chosen = value;
    if (value !== CLIP) sessionStorage.setItem(REMEMBERED, value);
    this.render();
    this.dispatchEvent(new Event("change"));
  }

  /** Offer the clip as a choice, and choose it; null takes it away. @param {{name: string, about: string} | null} clip */
  offerClip(clip) {
    const isNew = clip !== null && this.clip === null;
    this.clip = clip;
    if (isNew) this.choose(CLIP);
    else this.render();
    this.dispatchEvent(new Event("change"));
  }

  get usesClip() {
    return this.clip !== null && this.chosen === CLIP;
  }

  /** @returns {Voice | null} */
  get voice() {
    return this.voices.find(({ id }) => id === this.chosen) ?? null;
  }

  get label() {
    return this.usesClip ? this.clip.name : (this.voice?.name ?? "");
  }

  /** @param {Voice} voice */
  async remove(voice) {
    if (!confirm(say("voices.delete.confirm", { name: voice.name }))) return;
    try {
      await request(`v1/audio/voices/${encodeURIComponent(voice.id)}`, { method: "DELETE" });
      await this.load();
      this.report(say("voices.deleted", { name: voice.name }));
      this.root.focus();
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.report(faultInWords(error));
    }
  }

  render() {
    const valid = this.usesClip || this.voice;
    if (!valid && this.voices.length) {
      this.chosen = (this.voices.find(({ id, name }) => id === "default" || name === "default") ?? this.voices[0]).id;
    }
    const focused = document.activeElement?.closest("#voices input")?.value;
    const rows = this.voices.map((voice) => this.row(voice));
    if (this.clip) rows.unshift(this.choice(CLIP, this.clip.name, this.clip.about));
    this.root.replaceChildren(...rows);
    if (focused !== undefined) this.root.querySelector("input:checked")?.focus();
    this.dispatchEvent(new Event("render"));
  }

  /** @param {Voice} voice */
  row(voice) {
    if (voice.type === "builtin") return this.choice(voice.id, voice.name, voice.language);
    const remove = element("button", {
      type: "button",
      class: "bare",
      "aria-label": say("voices.delete", { name: voice.name }),
      onclick: () => this.remove(voice),
    });
    remove.append(icon("remove"));
    const about = [voice.language, say("voices.kept")].filter(Boolean).join(" · ");
    return this.choice(voice.id, voice.name, about, remove);
  }

  choice(value, name, about, ...more) {
    const input = element("input", { type: "radio", name: "voice", value, checked: value === this.chosen });
    const label = element("label", {}, input, element("span", { class: "name" }, name));
    if (about) label.append(element("span", { class: "tag" }, about));
    return element("div", { class: "voice" }, label, ...more);
  }
}
