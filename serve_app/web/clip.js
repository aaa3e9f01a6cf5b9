// The reference clip: dropped, chosen or recorded; trimmed; sent with a take or kept as a voice.

import { byId, icon } from "./dom.js";
import { ClipEditor } from "./clip_editor.js";
import { say } from "./language.js";
import { decodeSound } from "./pcm.js";
import { Recorder } from "./recorder.js";

const MAX_RECORDING_S = 30;
const TICK_MS = 200;

export class ClipPanel {
  /** @param {import("./voices.js").VoiceList} voices @param {import("./player.js").Player} player */
  constructor(voices, player) {
    this.voices = voices;
    this.player = player;
    /** @type {ClipEditor | null} */
    this.editor = null;
    /** @type {Recorder | null} */
    this.recorder = null;
    this.ticking = 0;
    byId("clip-choose").append(icon("file"), say("clip.choose"));
    byId("clip-choose").addEventListener("click", () => byId("clip-file").click());
    byId("clip-file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) this.load(file, file.name);
      event.target.value = "";
    });
    byId("clip-record").addEventListener("click", () => (this.recorder ? this.finishRecording() : this.record()));
    this.acceptDrops(byId("clip-drop"));
    this.renderRecord();
  }

  acceptDrops(zone) {
    // Anywhere else a dropped file would replace the page.
    for (const event of ["dragover", "drop"]) window.addEventListener(event, (e) => e.preventDefault());
    zone.addEventListener("dragover", () => zone.classList.add("over"));
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      zone.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) this.load(file, file.name);
    });
  }

  report(key) {
    byId("clip-state").textContent = key ? say(key) : "";
  }

  /** @param {Blob} file @param {string} name */
  async load(file, name) {
    this.report("");
    let samples;
    try {
      samples = await decodeSound(await file.arrayBuffer());
    } catch {
      this.report("clip.undecodable");
      return;
    }
    this.forget();
    const editor = new ClipEditor(samples, name, this.player);
    this.editor = editor;
    editor.addEventListener("change", () => this.offer());
    editor.addEventListener("forget", () => {
      this.forget();
      byId("clip-choose").focus();
    });
    editor.addEventListener("kept", async (event) => {
      await this.voices.load();
      this.voices.choose(event.detail.id);
    });
    byId("clip-editor").replaceChildren(editor.root);
    byId("clip-editor").hidden = false;
    this.offer();
  }

  offer() {
    this.voices.offerClip({ name: this.editor.name, about: this.editor.about });
  }

  forget() {
    this.editor?.close();
    this.editor = null;
    byId("clip-editor").hidden = true;
    byId("clip-editor").replaceChildren();
    this.voices.offerClip(null);
  }

  /** What a take sends of the clip as it is trimmed now. */
  attachment() {
    return this.editor?.attachment() ?? null;
  }

  async record() {
    if (!navigator.mediaDevices) {
      this.report("clip.record.insecure");
      return;
    }
    this.player.stop();
    try {
      this.recorder = await Recorder.open();
    } catch {
      this.report("clip.record.denied");
      return;
    }
    this.report("");
    this.ticking = setInterval(() => {
      this.renderRecord();
      if (this.recorder && this.recorder.seconds >= MAX_RECORDING_S) this.finishRecording();
    }, TICK_MS);
    this.renderRecord();
  }

  finishRecording() {
    clearInterval(this.ticking);
    const file = this.recorder.finish();
    this.recorder = null;
    this.renderRecord();
    return this.load(file, say("clip.recording"));
  }

  renderRecord() {
    const label = this.recorder
      ? say("clip.record.stop", { seconds: this.recorder.seconds.toFixed(0) })
      : say("clip.record");
    byId("clip-record").replaceChildren(icon(this.recorder ? "stop" : "microphone"), label);
    byId("clip-record").classList.toggle("recording", this.recorder !== null);
  }
}
