// The ring on the audio thread.

import { Ring } from "./ring.js";

class RingPlayer extends AudioWorkletProcessor {
  /** @param {{processorOptions: {ringSamples: number, prebufferSamples: number}}} options */
  constructor({ processorOptions }) {
    super();
    const ring = new Ring(processorOptions, (message) => this.port.postMessage(message));
    this.port.onmessage = ({ data }) => ring.receive(data);
    this.ring = ring;
  }

  process(_inputs, outputs) {
    this.ring.render(outputs[0][0], currentTime);
    return true;
  }
}

registerProcessor("ring-player", RingPlayer);
