// How the text is to be said: instruction, speed, seed; and the key for servers that want one.

import { byId } from "./dom.js";
import { apiKey } from "./http.js";
import { say } from "./language.js";

const MAX_SEED = 2 ** 31 - 1;

/** Fires "change" for how to say it, "key" for another API key. */
export class Options extends EventTarget {
  constructor() {
    super();
    const changed = () => {
      this.render();
      this.dispatchEvent(new Event("change"));
    };
    for (const id of ["instructions", "speed", "seed"]) byId(id).addEventListener("input", changed);
    byId("key").value = apiKey.get();
    byId("key").addEventListener("change", (event) => {
      apiKey.set(event.target.value);
      this.dispatchEvent(new Event("key"));
    });
    this.render();
  }

  get instructions() {
    return byId("instructions").value.trim();
  }

  /** The slider is in octaves: the middle is 1, the ends are 0.25 and 4. */
  get speed() {
    return Math.round(100 * 2 ** Number(byId("speed").value)) / 100;
  }

  get seedIsValid() {
    const text = byId("seed").value.trim();
    return text === "" || (/^\d{1,10}$/.test(text) && Number(text) <= MAX_SEED);
  }

  /** The seed asked for, or a fresh one: every take has a seed, so that it can be made again. */
  seed() {
    const text = byId("seed").value.trim();
    return text === "" ? crypto.getRandomValues(new Uint32Array(1))[0] % (MAX_SEED + 1) : Number(text);
  }

  render() {
    const speed = `${this.speed.toFixed(2)}×`;
    byId("speed-value").textContent = speed;
    byId("speed").setAttribute("aria-valuetext", speed);
    byId("seed").setAttribute("aria-invalid", String(!this.seedIsValid));
    byId("seed-hint").textContent = say(this.seedIsValid ? "options.seed.hint" : "options.seed.bad");
    byId("seed-hint").classList.toggle("bad", !this.seedIsValid);
  }
}
