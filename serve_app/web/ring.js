// A ring buffer of mono samples that plays every sample exactly once. It runs on the audio thread (player_worklet.js), or
// on the page's where there is no such thing (player.js).
//
// Messages in:   {type: "begin", epoch}     forget everything, count from zero
//                {type: "push", samples}    Float32Array; the sender keeps within the ring (see player.js)
//                {type: "end", ending}      true: what was pushed is all there is, an empty ring is no underrun
//                {type: "halt"}             fade out within one block and forget the rest
// Messages out:  {type: "report" | "started" | "ended" | "halted", epoch, played, underruns, time}

const SAMPLES_PER_REPORT = 1024;

export class Ring {
  /**
   * @param {{ringSamples: number, prebufferSamples: number}} sizes
   * @param {(message: object) => void} post takes the messages out
   */
  constructor({ ringSamples, prebufferSamples }, post) {
    this.ring = new Float32Array(ringSamples);
    this.prebufferSamples = prebufferSamples;
    this.post = post;
    this.time = 0;
    this.forget(0);
  }

  forget(epoch) {
    this.epoch = epoch;
    this.readAt = 0;
    this.filled = 0;
    this.played = 0;
    this.underruns = 0;
    this.state = "idle"; // idle: nothing to do; filling: waiting for the prebuffer; playing
    this.starved = false;
    this.ending = false;
    this.halting = false;
    this.sinceReport = 0;
  }

  receive(message) {
    if (message.type === "begin") {
      this.forget(message.epoch);
      this.state = "filling";
    } else if (message.type === "push") {
      this.write(message.samples);
    } else if (message.type === "end") {
      this.ending = message.ending;
    } else if (message.type === "halt") {
      this.halting = true;
    }
  }

  write(samples) {
    const size = this.ring.length;
    const writeAt = (this.readAt + this.filled) % size;
    const untilWrap = Math.min(samples.length, size - writeAt);
    this.ring.set(samples.subarray(0, untilWrap), writeAt);
    this.ring.set(samples.subarray(untilWrap), 0);
    this.filled += samples.length;
    if (this.state === "idle") this.state = "filling";
    // A pause is an underrun only if more sound follows it.
    if (this.starved && samples.length > 0) {
      this.starved = false;
      this.underruns += 1;
    }
  }

  /** Move up to output.length samples out of the ring; the rest of `output` is already silence. */
  read(output) {
    const size = this.ring.length;
    const count = Math.min(this.filled, output.length);
    const untilWrap = Math.min(count, size - this.readAt);
    output.set(this.ring.subarray(this.readAt, this.readAt + untilWrap));
    output.set(this.ring.subarray(0, count - untilWrap), untilWrap);
    this.readAt = (this.readAt + count) % size;
    this.filled -= count;
    return count;
  }

  report(type) {
    const { epoch, played, underruns, time } = this;
    this.sinceReport = 0;
    this.post({ type, epoch, played, underruns, time });
  }

  halt(output) {
    if (this.state === "playing") {
      const count = this.read(output);
      for (let i = 0; i < count; i++) output[i] *= 1 - (i + 1) / count;
    }
    this.state = "idle";
    this.filled = 0;
    this.starved = false;
    this.halting = false;
    this.report("halted");
  }

  /** Fill one block, silent until now. @param {Float32Array} output @param {number} time of its first sample, in s */
  render(output, time) {
    this.time = time;
    if (this.halting) {
      this.halt(output);
      return;
    }
    if (this.state === "filling") {
      if (this.filled >= this.prebufferSamples || (this.ending && this.filled > 0)) {
        if (this.played === 0) this.report("started");
        this.state = "playing";
      } else if (this.ending) {
        this.state = "idle";
        this.report("ended");
      }
    }
    if (this.state === "playing") {
      this.played += this.read(output);
      if (this.filled === 0) {
        this.state = this.ending ? "idle" : "filling";
        this.starved = !this.ending;
        this.report(this.ending ? "ended" : "report");
      }
    }
    this.sinceReport += output.length;
    if (this.state !== "idle" && this.sinceReport >= SAMPLES_PER_REPORT) this.report("report");
  }
}
