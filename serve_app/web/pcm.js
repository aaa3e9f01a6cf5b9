// Samples and their bytes: s16le in, s16le out, mono throughout.

export const SAMPLE_RATE_HZ = 24000;

/** Bytes of s16le in pieces of any size to whole samples; an odd byte waits for its other half. */
export class PcmReader {
  constructor() {
    /** @type {number | null} */
    this.carry = null;
  }

  /** @param {Uint8Array} bytes @returns {Int16Array} */
  read(bytes) {
    const carried = this.carry === null ? 0 : 1;
    const total = bytes.length + carried;
    const even = new Uint8Array(total - (total % 2));
    if (even.length === 0) {
      if (bytes.length === 1) this.carry = bytes[0];
      return new Int16Array(0);
    }
    if (this.carry !== null) even[0] = this.carry;
    even.set(bytes.subarray(0, even.length - carried), carried);
    this.carry = total % 2 ? bytes[bytes.length - 1] : null;
    return new Int16Array(even.buffer);
  }
}

/** @param {Int16Array} samples @returns {Float32Array} in -1..1 */
export function toFloat(samples) {
  return Float32Array.from(samples, (sample) => sample / 32768);
}

/** @param {Float32Array} samples @returns {Int16Array} rounded, saturated at full scale */
export function toInt16(samples) {
  return Int16Array.from(samples, (sample) => Math.max(-32768, Math.min(32767, Math.round(sample * 32768))));
}

/** A whole WAV file. @param {Int16Array} samples @param {number} rateHz @returns {Uint8Array} */
export function wavBytes(samples, rateHz) {
  const file = new Uint8Array(44 + samples.byteLength);
  const header = new DataView(file.buffer);
  const ascii = (offset, text) => [...text].forEach((c, i) => header.setUint8(offset + i, c.charCodeAt(0)));
  ascii(0, "RIFF");
  header.setUint32(4, 36 + samples.byteLength, true);
  ascii(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rateHz, true);
  header.setUint32(28, 2 * rateHz, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  ascii(36, "data");
  header.setUint32(40, samples.byteLength, true);
  file.set(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength), 44);
  return file;
}

/** @param {Int16Array} samples @param {number} rateHz @returns {Blob} */
export function wavFile(samples, rateHz) {
  return new Blob([wavBytes(samples, rateHz)], { type: "audio/wav" });
}

/**
 * Any sound file that the browser can read, at the models' rate; needs no click. Errors: what `decodeAudioData` throws.
 * @param {ArrayBuffer} file @returns {Promise<Int16Array>} the mean of its channels
 */
export async function decodeSound(file) {
  const sound = await new OfflineAudioContext(1, 1, SAMPLE_RATE_HZ).decodeAudioData(file);
  const mixed = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((sample, i) => {
      mixed[i] += sample / sound.numberOfChannels;
    });
  }
  return toInt16(mixed);
}

/** @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** @param {Uint8Array} bytes @returns {string} */
export function base64(bytes) {
  const parts = [];
  for (let i = 0; i < bytes.length; i += 8192) parts.push(String.fromCharCode(...bytes.subarray(i, i + 8192)));
  return btoa(parts.join(""));
}

export const PEAKS_PER_SECOND = 100;

/** The loudest sample of every 10 ms, 0..1, gathered as sound arrives: what a waveform draws. */
export class Peaks {
  /** @param {number} rateHz */
  constructor(rateHz) {
    this.bucketSamples = rateHz / PEAKS_PER_SECOND;
    this.values = new Float32Array(PEAKS_PER_SECOND * 8);
    this.numSamples = 0;
  }

  /** @param {Int16Array} samples */
  add(samples) {
    const needed = Math.ceil((this.numSamples + samples.length) / this.bucketSamples);
    if (needed > this.values.length) {
      const grown = new Float32Array(Math.max(needed, 2 * this.values.length));
      grown.set(this.values);
      this.values = grown;
    }
    for (let i = 0; i < samples.length; i++) {
      const bucket = Math.floor((this.numSamples + i) / this.bucketSamples);
      this.values[bucket] = Math.max(this.values[bucket], Math.abs(samples[i]) / 32768);
    }
    this.numSamples += samples.length;
  }

  /** The loudest within a stretch of time. @param {number} startS @param {number} endS */
  loudest(startS, endS) {
    const last = Math.ceil(this.numSamples / this.bucketSamples);
    const start = Math.floor(startS * PEAKS_PER_SECOND);
    const end = Math.min(last, Math.max(start + 1, Math.floor(endS * PEAKS_PER_SECOND)));
    let loudest = 0;
    for (let i = start; i < end; i++) loudest = Math.max(loudest, this.values[i]);
    return loudest;
  }
}
