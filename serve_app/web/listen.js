// The panel that shows one take: its stages, waveform, playhead and numbers, while it is made and after.

import { byId, download, icon } from "./dom.js";
import { postSpeech, speechBody } from "./http.js";
import { bytes, faultInWords, milliseconds, say, seconds } from "./language.js";
import { SAMPLE_RATE_HZ } from "./pcm.js";
import { axisSeconds, Waveform } from "./waveform.js";

const SEEK_S = 1;
const PICTURE_MS = 33;
/** Where the server's own stages (Server-Timing) belong among ours. */
const STEP_OF_STAGE = { queue: 0, preprocess: 1, first_audio: 2 };

/** Fires "show" when another take is shown, and "draw" with every picture while something moves. */
export class ListenPanel extends EventTarget {
  /** @param {import("./player.js").Player} player */
  constructor(player) {
    super();
    this.player = player;
    /** @type {import("./take.js").Take | null} */
    this.take = null;
    this.drawing = false;
    this.drawnAt = 0;
    this.root = byId("listen");
    this.steps = [...byId("steps").children];
    this.waveform = new Waveform();
    byId("seek").append(this.waveform.root);
    byId("download").append(icon("download"), say("listen.download"));
    byId("code-open").append(icon("code"), say("listen.code"));
    this.update = this.update.bind(this);
    player.addEventListener("change", this.update);
    byId("play").addEventListener("click", () => this.toggle());
    byId("download").addEventListener("click", () => this.save(byId("format").value));
    byId("seek").addEventListener("pointerdown", (event) => this.seek(this.waveform.timeAt(event)));
    byId("seek").addEventListener("keydown", (event) => this.seekByKey(event));
    this.update();
  }

  /** @param {import("./take.js").Take | null} take */
  show(take) {
    for (const event of ["grow", "change"]) {
      this.take?.removeEventListener(event, this.update);
      take?.addEventListener(event, this.update);
    }
    this.take = take;
    byId("download-state").textContent = "";
    this.render();
    this.dispatchEvent(new Event("show"));
  }

  get isPlaying() {
    return this.player.playing && this.player.take === this.take;
  }

  get positionS() {
    return this.player.take === this.take ? this.player.positionS : 0;
  }

  toggle() {
    if (this.isPlaying && !this.player.blocked) this.player.stop();
    else if (this.take?.numSamples) this.player.play(this.take);
    this.render();
  }

  /** @param {number} timeS */
  seek(timeS) {
    if (!this.take?.numSamples) return;
    const last = Math.max(0, this.take.numSamples - 1);
    this.player.play(this.take, Math.max(0, Math.min(last, Math.round(timeS * SAMPLE_RATE_HZ))));
    this.render();
  }

  /** @param {KeyboardEvent} event */
  seekByKey(event) {
    const moves = {
      ArrowRight: () => this.seek(this.positionS + SEEK_S),
      ArrowLeft: () => this.seek(this.positionS - SEEK_S),
      Home: () => this.seek(0),
      " ": () => this.toggle(),
      Enter: () => this.toggle(),
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move();
  }

  /** @param {string} format */
  async save(format) {
    const { take } = this;
    if (!take) return;
    const state = byId("download-state");
    const name = `take-${take.order.seed}.${format === "opus" ? "ogg" : format}`;
    try {
      if (format === "wav") download(take.wav(), name);
      else {
        // The same seed makes the same sound, so an encoded file is simply asked for.
        state.textContent = say("listen.download.busy", { format });
        download(await (await postSpeech(speechBody(take, format))).blob(), name);
      }
      state.textContent = say("listen.download.done", { name });
    } catch (error) {
      state.textContent = faultInWords(error);
    }
  }

  /** Draw soon, at most 30 times a second, and go on while something moves. */
  update() {
    if (this.drawing) return;
    this.drawing = true;
    const draw = () => {
      this.drawing = false;
      this.drawnAt = performance.now();
      this.render();
      this.dispatchEvent(new Event("draw"));
      if (this.player.playing || (this.take && !this.take.ended)) this.update();
    };
    setTimeout(() => requestAnimationFrame(draw), this.drawnAt + PICTURE_MS - performance.now());
  }

  render() {
    const { take } = this;
    const durationS = take?.durationS ?? 0;
    const axisS = axisSeconds(durationS, take && !take.ended ? expectedSeconds(take.order) : durationS);
    this.waveform.show({ peaks: take?.peaks ?? null, durationS, axisS, positionS: this.positionS });
    this.showProgress(durationS, axisS);
    this.showSteps();
    this.showNumbers();
    const stage = this.stage();
    if (byId("stage").textContent !== stage) byId("stage").textContent = stage;
    this.root.dataset.state = take?.state ?? "idle";
    this.root.dataset.playing = String(this.isPlaying);
    byId("listen-about").textContent = take
      ? say("listen.about", { voice: take.voiceLabel, speed: take.order.speed.toFixed(2), seed: take.order.seed })
      : say("listen.nothing");
    const playing = this.isPlaying && !this.player.blocked;
    const label = playing ? say("write.stop") : say("listen.play");
    if (byId("play").textContent !== label) byId("play").replaceChildren(icon(playing ? "stop" : "play"), label);
    byId("play").disabled = durationS === 0;
    byId("download").disabled = durationS === 0 || !take?.ended;
  }

  showProgress(durationS, axisS) {
    const { positionS } = this;
    const percent = durationS ? Math.round((100 * positionS) / durationS) : 0;
    byId("progress").setAttribute("aria-valuenow", percent);
    byId("progress").firstElementChild.style.width = `${(100 * durationS) / axisS}%`;
    byId("progress").lastElementChild.style.width = `${(100 * Math.min(positionS, durationS)) / axisS}%`;
    byId("position").textContent = seconds(positionS);
    byId("duration").textContent = seconds(durationS);
    const seek = byId("seek");
    seek.setAttribute("aria-valuemax", seconds(durationS));
    seek.setAttribute("aria-valuenow", seconds(positionS));
    const values = { position: seconds(positionS), duration: seconds(durationS) };
    seek.setAttribute("aria-valuetext", say("listen.position.value", values));
  }

  showSteps() {
    const { take, player } = this;
    byId("step-reading").textContent = say(take?.clip ? "step.reading.clip" : "step.reading");
    const stopped = take?.state === "stopped" || (player.take === take && player.stopped);
    byId("step-last").textContent = say(stopped ? "step.stopped" : "step.done");
    const done = take && (take.state === "complete" || take.state === "stopped") && !this.isPlaying;
    // Until the answer begins nobody outside the server knows whether it queues or reads.
    const active = !take ? [] : take.state === "waiting" ? [0, 1] : done ? [3] : take.state === "failed" ? [] : [2];
    this.steps.forEach((step, index) => {
      step.classList.toggle("active", active.includes(index));
      step.classList.toggle("past", active.length > 0 && index < active[0]);
      if (active[0] === index) step.setAttribute("aria-current", "step");
      else step.removeAttribute("aria-current");
      const stage = take?.stages.find(({ name }) => STEP_OF_STAGE[name] === index);
      step.lastElementChild.textContent = stage ? milliseconds(stage.ms) : "";
    });
  }

  showNumbers() {
    const { take, player } = this;
    const waitedMs = take?.state === "waiting" || this.isPlaying ? performance.now() - (take?.startedAt ?? 0) : null;
    const firstMs = take ? (take.firstSoundMs ?? waitedMs) : null;
    show("n-first", firstMs === null ? null : milliseconds(firstMs), take?.firstSoundMs);
    byId("n-first").classList.toggle("running", Boolean(take && take.firstSoundMs === null));
    const ahead = this.isPlaying ? Math.max(0, player.aheadS) : take ? 0 : null;
    show("n-ahead", ahead === null ? null : say("unit.s", { n: seconds(ahead) }), ahead);
    show("n-underruns", take ? String(take.underruns) : null, take?.underruns);
    const factor = take?.realTimeFactor ?? null;
    show("n-factor", factor === null ? null : factor.toFixed(2), factor);
    show("n-bytes", take ? bytes(take.numBytes) : null, take?.numBytes);
    byId("n-underruns").classList.toggle("bad", Boolean(take?.underruns));
    const heard = player.take === take ? player : null;
    this.root.dataset.played = String(heard ? heard.startSample + heard.played : 0);
    this.root.dataset.stopMs = String(heard?.stopMs ?? "");
  }

  /** Where this take is, in one sentence. */
  stage() {
    const { take, player } = this;
    if (!take) return say("stage.idle");
    if (take.state === "failed" && take.fault) {
      const fault = faultInWords(take.fault);
      return take.numSamples ? say("stage.partial", { fault, duration: seconds(take.durationS) }) : fault;
    }
    if (this.isPlaying && player.blocked) return say("stage.blocked");
    if (take.awaitsText) return say("stage.typing");
    if (take.state === "waiting") return say("stage.waiting");
    if (this.isPlaying && player.played > 0) {
      return take.ended || player.aheadS > 0 ? say("stage.speaking") : say("stage.starved");
    }
    const stopMs = player.take === take ? player.stopMs : null;
    if (stopMs !== null) return say("stage.stopped.ms", { ms: Math.max(1, Math.round(stopMs)) });
    if (take.state === "stopped") return say("stage.stopped");
    if (take.state === "receiving") return say("stage.arriving");
    return say("stage.done", { duration: seconds(take.durationS) });
  }
}

/** A number of the panel, with its exact value beside the rounded one. */
function show(id, text, value) {
  const cell = byId(id);
  cell.textContent = text ?? "–";
  if (value === null || value === undefined) delete cell.dataset.value;
  else cell.dataset.value = String(value);
}

/** How long that text will roughly take to say, so that the axis need not grow often. */
function expectedSeconds({ input, speed }) {
  const wide = (input.match(/[\u3040-\u9fff\uac00-\ud7af]/g) ?? []).length;
  return (wide / 4 + (input.length - wide) / 14) / speed;
}
