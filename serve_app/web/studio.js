// What the views share: the order as it stands, the takes made so far, and the one take that is being made.

import { receive } from "./http.js";
import { say } from "./language.js";
import { Take } from "./take.js";

/** Fires "take" for every new take and "remove" for one that is thrown away. */
export class Studio extends EventTarget {
  /**
   * @param {{
   *   player: import("./player.js").Player, listen: import("./listen.js").ListenPanel,
   *   voices: import("./voices.js").VoiceList, options: import("./options.js").Options,
   *   clip: import("./clip.js").ClipPanel,
   * }} parts
   */
  constructor({ player, listen, voices, options, clip }) {
    super();
    this.player = player;
    this.listen = listen;
    this.voices = voices;
    this.options = options;
    this.clip = clip;
    /** @type {Take[]} newest first */
    this.takes = [];
    /** @type {AbortController | null} */
    this.making = null;
  }

  /** A take of that text with the settings as they are. @param {string} input @param {number} startedAt */
  newTake(input, startedAt, typed = false) {
    const { options, voices } = this;
    const order = {
      input,
      voice: voices.voice?.id ?? "default",
      seed: options.seed(),
      speed: options.speed,
      instructions: options.instructions,
    };
    const clip = voices.usesClip ? this.clip.attachment() : null;
    const voiceLabel = voices.label || order.voice;
    return new Take(order, { voiceLabel, clip, startedAt, typed });
  }

  /** @param {Take} take */
  keep(take) {
    this.takes.unshift(take);
    this.listen.show(take);
    this.dispatchEvent(new CustomEvent("take", { detail: take }));
  }

  /** Ask for a text and play it as it comes. Call it in the click. @param {string} text @param {number} startedAt */
  speak(text, startedAt) {
    this.player.unlock();
    this.making?.abort();
    const take = this.newTake(text, startedAt);
    const making = new AbortController();
    this.making = making;
    this.keep(take);
    this.player.play(take);
    return receive(take, making.signal).finally(() => {
      if (this.making === making) this.making = null;
    });
  }

  /** Silence, and no more work on the server. */
  stop() {
    this.player.stop();
    this.making?.abort();
  }

  /** @param {Take} take */
  remove(take) {
    if (this.player.take === take) this.player.stop();
    this.takes = this.takes.filter((other) => other !== take);
    if (this.listen.take === take) this.listen.show(this.takes[0] ?? null);
    this.dispatchEvent(new CustomEvent("remove", { detail: take }));
  }

  /** The voice and speed of the next take, in a few words. */
  summary() {
    const { options, voices } = this;
    return `${voices.label || say("voices")} · ${options.speed.toFixed(2)}×`;
  }
}
