// One generation: what was asked for, every sample that came back, and how long each step took.

import { Peaks, SAMPLE_RATE_HZ, toFloat, wavFile } from "./pcm.js";

/**
 * What the user asked for, in the fields of `POST /v1/audio/speech`.
 * @typedef {{input: string, voice: string, seed: number, speed: number, instructions: string}} Order
 */

/**
 * A reference clip, as it goes with a take.
 * @typedef {{file: Blob, base64: string, transcript: string, denoise: "auto" | "on" | "off"}} Attachment
 */

/** @typedef {"waiting" | "receiving" | "complete" | "stopped" | "failed"} TakeState */

/** Fires "grow" when samples were added and "change" when anything else did. Times are `performance.now()` ms. */
export class Take extends EventTarget {
  /**
   * @param {Order} order
   * @param {{
   *   voiceLabel: string, clip?: Attachment | null, startedAt: number, typed?: boolean,
   * }} about typed: its text came bit by bit, so the time it took says nothing of the server
   */
  constructor(order, { voiceLabel, clip = null, startedAt, typed = false }) {
    super();
    this.order = order;
    this.voiceLabel = voiceLabel;
    this.clip = clip;
    this.startedAt = startedAt;
    this.typed = typed;
    /** Whether its text is being typed: the server has no more to say than it was given, so a pause is not its fault. */
    this.awaitsText = false;
    /** @type {TakeState} */
    this.state = "waiting";
    /** @type {import("./http.js").Fault | null} */
    this.fault = null;
    /** The server's own stages. @type {{name: string, ms: number}[]} */
    this.stages = [];
    this.samples = new Int16Array(SAMPLE_RATE_HZ * 8);
    this.numSamples = 0;
    this.numBytes = 0;
    this.peaks = new Peaks(SAMPLE_RATE_HZ);
    this.receivedAt = startedAt;
    /** @type {number | null} */
    this.firstSoundMs = null;
    this.underruns = 0;
  }

  get durationS() {
    return this.numSamples / SAMPLE_RATE_HZ;
  }

  /** Whether no more samples are expected now. */
  get ended() {
    return this.state !== "waiting" && this.state !== "receiving";
  }

  /** Seconds of waiting per second of sound so far; null where there is none. */
  get realTimeFactor() {
    return this.numSamples && !this.typed ? (this.receivedAt - this.startedAt) / 1000 / this.durationS : null;
  }

  /** @param {Int16Array} samples @param {number} numBytes bytes that came over the wire for them */
  add(samples, numBytes) {
    this.numBytes += numBytes;
    this.receivedAt = performance.now();
    if (this.numSamples + samples.length > this.samples.length) {
      const grown = new Int16Array(2 * (this.numSamples + samples.length));
      grown.set(this.samples.subarray(0, this.numSamples));
      this.samples = grown;
    }
    this.samples.set(samples, this.numSamples);
    this.numSamples += samples.length;
    this.peaks.add(samples);
    this.dispatchEvent(new Event("grow"));
  }

  /** @param {TakeState} state @param {import("./http.js").Fault | null} [fault] */
  become(state, fault = null) {
    this.state = state;
    this.fault = fault;
    this.dispatchEvent(new Event("change"));
  }

  /** @param {boolean} awaits */
  awaitText(awaits) {
    this.awaitsText = awaits;
    this.dispatchEvent(new Event("change"));
  }

  /** Samples from `start` on, at most `count`. @returns {Float32Array} */
  read(start, count) {
    return toFloat(this.samples.subarray(start, Math.min(start + count, this.numSamples)));
  }

  wav() {
    return wavFile(this.samples.slice(0, this.numSamples), SAMPLE_RATE_HZ);
  }
}

/** A sound that is at hand and whole, as something to play. @param {Int16Array} samples at SAMPLE_RATE_HZ */
export function soundTake(samples) {
  const order = { input: "", voice: "", seed: 0, speed: 1, instructions: "" };
  const take = new Take(order, { voiceLabel: "", startedAt: performance.now() });
  take.add(samples, 0);
  take.become("complete");
  return take;
}
