// Plays a take while it is still being made. One player, one sound at a time.

import { SAMPLE_RATE_HZ } from "./pcm.js";
import { Ring } from "./ring.js";

const SIZES = { ringSamples: 20 * SAMPLE_RATE_HZ, prebufferSamples: 0.1 * SAMPLE_RATE_HZ };
const BLOCK_S = 128 / SAMPLE_RATE_HZ;
const PUSH_SAMPLES = 0.2 * SAMPLE_RATE_HZ;
/** How long an idle context stays awake: it costs power, and waking takes a moment. */
const REST_AFTER_MS = 10_000;
/** How long a context may take to run before the page says that the browser holds the sound back. */
const BLOCKED_AFTER_MS = 1000;

/** Sends one message to the ring. @typedef {(message: object, transfer?: Transferable[]) => void} Post */

/**
 * Fires "change" with every report of the audio thread. The ring holds 20 s; the rest waits in the take, so the
 * sender never overruns it.
 */
export class Player extends EventTarget {
  constructor() {
    super();
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {Promise<Post> | null} */
    this.opening = null;
    /** @type {Post | null} */
    this.post = null;
    /** @type {import("./take.js").Take | null} */
    this.take = null;
    this.playing = false;
    /** Whether the user stopped the take that was played last. */
    this.stopped = false;
    this.blocked = false;
    this.resting = 0;
    this.epoch = 0;
    this.startSample = 0;
    this.sent = 0;
    this.endSent = false;
    this.played = 0;
    this.reportTime = 0;
    /** Milliseconds from the last `stop()` to silence, by the audio clock. @type {number | null} */
    this.stopMs = null;
    /** When that was, in the context's time. */
    this.stopAsked = 0;
    this.countsUnderruns = false;
    this.earlierUnderruns = 0;
    this.feed = this.feed.bind(this);
  }

  /** Makes and wakes the audio context. Call it first thing in a click: browsers allow sound only there. */
  unlock() {
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: SAMPLE_RATE_HZ, latencyHint: "interactive" });
      const hear = (report) => this.hear(report);
      this.opening = this.context.audioWorklet ? openWorklet(this.context, hear) : openScript(this.context, hear);
    }
    clearTimeout(this.resting);
    if (this.context.state === "suspended") this.context.resume();
  }

  /** Play a take, from a place in it, in place of whatever plays now. @param {import("./take.js").Take} take */
  async play(take, startSample = 0) {
    this.leave();
    this.unlock();
    this.take = take;
    this.playing = true;
    this.stopped = false;
    this.epoch += 1;
    this.startSample = startSample;
    this.sent = startSample;
    this.endSent = false;
    this.played = 0;
    this.stopMs = null;
    // a replay has everything at hand: only the first hearing tells of the server
    this.countsUnderruns = !take.ended;
    this.earlierUnderruns = take.underruns;
    take.addEventListener("grow", this.feed);
    take.addEventListener("change", this.feed);
    this.watchForBlock(this.epoch);
    const epoch = this.epoch;
    const post = await this.opening;
    if (epoch !== this.epoch || !this.playing) return;
    this.post = post;
    post({ type: "begin", epoch });
    this.feed();
    this.dispatchEvent(new Event("change"));
  }

  /** Silence, now. */
  stop() {
    if (!this.playing) return;
    this.stopAsked = this.context?.currentTime ?? 0;
    this.leave();
    this.stopped = true;
    this.post?.({ type: "halt" });
    this.dispatchEvent(new Event("change"));
  }

  leave() {
    this.take?.removeEventListener("grow", this.feed);
    this.take?.removeEventListener("change", this.feed);
    this.playing = false;
    this.blocked = false;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.playing || this.context?.suspend(), REST_AFTER_MS);
  }

  /** Top the ring up from the take, and say when that was all of it, or all that there is text for. */
  feed() {
    const { take, post } = this;
    if (!take || !post || !this.playing) return;
    let free = SIZES.ringSamples - (this.sent - this.startSample - this.played);
    while (free > 0 && this.sent < take.numSamples) {
      const samples = take.read(this.sent, Math.min(free, PUSH_SAMPLES));
      this.sent += samples.length;
      free -= samples.length;
      post({ type: "push", samples }, [samples.buffer]);
    }
    const ending = (take.ended || take.awaitsText) && this.sent === take.numSamples;
    if (ending !== this.endSent) {
      this.endSent = ending;
      post({ type: "end", ending });
    }
  }

  /** One report of the audio thread. */
  hear(report) {
    if (report.epoch !== this.epoch || !this.take || !this.context) return;
    this.played = report.played;
    this.reportTime = report.time;
    const latency = this.context.outputLatency || 0;
    if (report.type === "halted") this.stopMs = (report.time + BLOCK_S - this.stopAsked + latency) * 1000;
    if (this.countsUnderruns) this.take.underruns = this.earlierUnderruns + report.underruns;
    if (report.type === "started" && this.take.firstSoundMs === null) {
      const sinceMs = (this.context.currentTime - report.time - latency) * 1000;
      this.take.firstSoundMs = performance.now() - sinceMs - this.take.startedAt;
    }
    const heardAll = this.startSample + this.played === this.take.numSamples;
    if (report.type === "ended" && heardAll) this.leave();
    else this.feed();
    this.dispatchEvent(new Event("change"));
  }

  /** Where the listener is in the take, in seconds; between reports the audio clock fills in. */
  get positionS() {
    const base = this.startSample + this.played;
    if (!this.playing || !this.context || this.played === 0 || base === this.sent) return base / SAMPLE_RATE_HZ;
    const since = this.context.currentTime - this.reportTime - (this.context.outputLatency || 0);
    const position = base / SAMPLE_RATE_HZ + Math.min(since, 0.1);
    return Math.max(0, Math.min(position, this.sent / SAMPLE_RATE_HZ));
  }

  /** Seconds of sound that are here and not yet played. */
  get aheadS() {
    return this.take && this.playing ? this.take.durationS - (this.startSample + this.played) / SAMPLE_RATE_HZ : 0;
  }

  /** @param {number} epoch */
  watchForBlock(epoch) {
    setTimeout(() => {
      if (epoch !== this.epoch || !this.playing || this.context?.state === "running") return;
      this.blocked = true;
      this.dispatchEvent(new Event("change"));
    }, BLOCKED_AFTER_MS);
  }
}

/** @param {AudioContext} context @param {(report: object) => void} hear @returns {Promise<Post>} */
async function openWorklet(context, hear) {
  await context.audioWorklet.addModule(new URL("player_worklet.js", import.meta.url));
  const options = { numberOfInputs: 0, outputChannelCount: [1], processorOptions: SIZES };
  const node = new AudioWorkletNode(context, "ring-player", options);
  node.port.onmessage = ({ data }) => hear(data);
  node.connect(context.destination);
  return (message, transfer = []) => node.port.postMessage(message, transfer);
}

/**
 * The same ring on the page's own thread: browsers have no worklets on pages that are not secure, which is what plain
 * http from another machine of the same network is.
 * @param {AudioContext} context @param {(report: object) => void} hear @returns {Promise<Post>}
 */
async function openScript(context, hear) {
  const ring = new Ring(SIZES, hear);
  const node = context.createScriptProcessor(1024, 0, 1);
  node.onaudioprocess = ({ outputBuffer, playbackTime }) => {
    const output = outputBuffer.getChannelData(0);
    output.fill(0);
    ring.render(output, playbackTime);
  };
  node.connect(context.destination);
  return (message) => ring.receive(message);
}
