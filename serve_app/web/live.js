// Live mode: text leaves word by word over a WebSocket, sound comes back while the sentence is typed, Esc interrupts.

import { byId, element, icon } from "./dom.js";
import { address, apiKey, clipFields, Fault, request } from "./http.js";
import { faultInWords, say } from "./language.js";
import { PcmReader, SAMPLE_RATE_HZ } from "./pcm.js";

/** When the typist rests that long, what was begun is spoken as it is. */
const REST_MS = 900;

/** What ends a word: a space, or where words have none, each character and mark. */
const WORD_END = /\s|[\p{Ideographic}\p{Script=Hiragana}\p{Script=Katakana}。！？；：，、」』）]/gu;

/** Split typed text into the words that are complete and what is still being typed. @returns {[string, string]} */
export function splitWords(text) {
  const last = [...text.matchAll(WORD_END)].at(-1);
  const end = last ? last.index + last[0].length : 0;
  return [text.slice(0, end), text.slice(end)];
}

export class LiveView {
  /** @param {import("./studio.js").Studio} studio */
  constructor(studio) {
    this.studio = studio;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {import("./take.js").Take | null} */
    this.take = null;
    this.pcm = new PcmReader();
    /** The settings as the server knows them. */
    this.config = "";
    /** Whether sound comes that was made before an interruption. */
    this.stale = false;
    this.sounding = false;
    this.resting = 0;
    this.text = byId("live-text");
    this.said = byId("live-said");
    byId("live-start").addEventListener("click", () => (this.socket ? this.end() : this.start()));
    byId("live-interrupt").append(icon("stop"), say("live.interrupt"), element("kbd", {}, "Esc"));
    byId("live-interrupt").addEventListener("click", () => this.interrupt());
    this.text.addEventListener("input", (event) => event.isComposing || this.typed());
    this.text.addEventListener("compositionend", () => this.typed());
    this.said.textContent = say("live.said.none");
    this.report(say("live.off"));
    this.render();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  report(text, bad = false) {
    byId("live-state").textContent = text;
    byId("live-state").classList.toggle("bad", bad);
  }

  render() {
    const started = this.socket !== null;
    byId("live-start").replaceChildren(icon(started ? "stop" : "play"), say(started ? "live.end" : "live.start"));
    byId("live-interrupt").disabled = !this.isOpen;
    this.text.disabled = !this.isOpen;
  }

  start() {
    this.studio.player.unlock();
    this.studio.stop();
    const url = address("v1/audio/speech/stream");
    url.protocol = url.protocol.replace("http", "ws");
    // a browser cannot set headers on a WebSocket
    if (apiKey.get()) url.searchParams.set("token", apiKey.get());
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.report(say("live.connecting"));
    this.said.replaceChildren();
    let opened = false;
    socket.addEventListener("open", () => {
      opened = true;
      this.config = "";
      this.configure();
      this.report(say("live.on"));
      this.render();
      this.text.focus();
    });
    socket.addEventListener("message", ({ data }) => {
      if (typeof data === "string") this.hear(JSON.parse(data));
      else this.sound(new Uint8Array(data));
    });
    socket.addEventListener("close", ({ code, reason }) => {
      if (this.socket !== socket) return;
      this.socket = null;
      this.finishTake("stopped");
      if (opened) this.report(closeInWords(code, reason), true);
      else this.explainRefusal();
      this.render();
    });
    this.render();
  }

  /** Tell the server the voice and the delivery, where they are not what it knows; for the text that follows. */
  configure() {
    const config = JSON.stringify({ type: "session.config", ...this.settings() });
    if (config === this.config) return;
    this.config = config;
    this.socket.send(config);
  }

  settings() {
    const { voices, options, clip } = this.studio;
    const attachment = voices.usesClip ? clip.attachment() : null;
    return {
      voice: voices.voice?.id ?? "default",
      response_format: "pcm",
      sample_rate: SAMPLE_RATE_HZ,
      speed: options.speed,
      ...(options.instructions && { instructions: options.instructions }),
      ...(attachment && clipFields(attachment)),
    };
  }

  /** A WebSocket that never opens says nothing of why: ask over HTTP. */
  async explainRefusal() {
    try {
      await request("ready");
      this.report(say("live.unsupported"), true);
    } catch (error) {
      this.report(error instanceof Fault ? faultInWords(error) : say("live.unsupported"), true);
    }
  }

  send(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }

  typed() {
    clearTimeout(this.resting);
    const [complete, rest] = splitWords(this.text.value);
    if (complete) {
      this.commit(complete);
      this.text.value = rest;
    }
    if (complete.endsWith("\n")) this.rested();
    else this.resting = setTimeout(() => this.rested(), REST_MS);
  }

  /** Send the unfinished word too: the sentence ends here, and the server need not wait for more of it. */
  rested() {
    const rest = this.text.value;
    this.text.value = "";
    this.commit(rest);
    this.send({ type: "input.flush" });
    this.take?.awaitText(false);
  }

  commit(text) {
    if (!this.isOpen || !text.trim()) return;
    this.configure();
    this.send({ type: "input.text", text });
    this.said.append(element("span", {}, text));
    this.said.scrollTop = this.said.scrollHeight;
    this.report(say("live.on"));
    this.beginTake(text);
  }

  /** One take holds everything between two interruptions. */
  beginTake(text) {
    if (this.take) {
      this.take.order.input += text;
      this.take.awaitText(true);
      return;
    }
    this.take = this.studio.newTake(text, performance.now(), true);
    this.take.awaitText(true);
    this.studio.keep(this.take);
    this.studio.player.play(this.take);
  }

  /** @param {Uint8Array} data */
  sound(data) {
    const { take } = this;
    const { player } = this.studio;
    if (!take || this.stale) return;
    if (take.state !== "receiving") take.become("receiving");
    const heard = take.numSamples;
    take.add(this.pcm.read(data), data.length);
    if (player.take === take && !player.playing && !player.stopped) player.play(take, heard);
  }

  hear(message) {
    if (message.type === "audio.start") {
      this.pcm = new PcmReader();
      this.sounding = true;
      this.stale = false;
    } else if (message.type === "audio.done") {
      this.sounding = false;
      this.stale = false;
      // more may follow, after a pause of the typist, not of the server
      if (!message.cancelled) this.take?.become("complete");
    } else if (message.type === "error") {
      const { code = "", message: words = "" } = message.error ?? message;
      this.report(faultInWords(new Fault({ code, message: words })), true);
    } else if (message.type === "session.done") {
      this.close();
    }
  }

  /** Barge-in: silence here first, then tell the server. */
  interrupt() {
    if (!this.isOpen) return;
    clearTimeout(this.resting);
    this.studio.player.stop();
    this.send({ type: "input.cancel" });
    this.stale = this.sounding;
    this.finishTake("stopped");
    this.said.append(element("em", {}, ` (${say("live.interrupted")}) `));
    this.report(say("live.interrupted"));
    this.text.focus();
  }

  finishTake(state) {
    this.take?.awaitText(false);
    if (this.take && !this.take.ended) this.take.become(state);
    this.take = null;
  }

  end() {
    clearTimeout(this.resting);
    this.studio.player.stop();
    this.send({ type: "session.close" });
    this.close();
  }

  close() {
    const { socket } = this;
    this.socket = null;
    socket?.close(1000);
    this.finishTake("stopped");
    this.report(say("live.off"));
    this.render();
    byId("live-start").focus();
  }
}

/** Why the server hung up. @param {number} code @param {string} reason */
function closeInWords(code, reason) {
  const known = { 1008: "invalid_api_key", 1013: "overloaded" }[code];
  return known || reason ? faultInWords(new Fault({ code: known ?? "", message: reason })) : say("live.lost");
}
