// The microphone, unprocessed: a reference clip should be the voice, not what a call app makes of it.

import { toInt16, wavFile } from "./pcm.js";

export class Recorder {
  /** @param {MediaStream} stream @param {AudioContext} context @param {AudioWorkletNode} node */
  constructor(stream, context, node) {
    this.stream = stream;
    this.context = context;
    /** @type {Float32Array[]} */
    this.blocks = [];
    node.port.onmessage = ({ data }) => this.blocks.push(data);
    context.createMediaStreamSource(stream).connect(node);
  }

  /** Call it in a click. Errors: what `getUserMedia` throws, NotAllowedError above all. */
  static async open() {
    const context = new AudioContext();
    const settings = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: settings });
      await context.audioWorklet.addModule(new URL("recorder_worklet.js", import.meta.url));
      return new Recorder(stream, context, new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 }));
    } catch (error) {
      context.close();
      throw error;
    }
  }

  get seconds() {
    return this.blocks.reduce((total, block) => total + block.length, 0) / this.context.sampleRate;
  }

  /** Let go of the microphone. @returns {Blob} a WAV file of everything heard */
  finish() {
    for (const track of this.stream.getTracks()) track.stop();
    const rateHz = this.context.sampleRate;
    this.context.close();
    const samples = new Float32Array(this.blocks.reduce((total, block) => total + block.length, 0));
    let at = 0;
    for (const block of this.blocks) {
      samples.set(block, at);
      at += block.length;
    }
    return wavFile(toInt16(samples), rateHz);
  }
}
