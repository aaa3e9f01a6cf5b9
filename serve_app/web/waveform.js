// A canvas that draws loudness over time, what was played in one colour and what is still to come in another.

import { element } from "./dom.js";

const BAR_PX = 2;
const GAP_PX = 1;

/** Seconds of the axis for that much sound: steps, so that the picture stands still most of the time. */
export function axisSeconds(durationS, atLeastS) {
  let axis = Math.max(3, atLeastS);
  while (durationS > axis) axis *= 1.5;
  return axis;
}

/**
 * @typedef {{peaks: import("./pcm.js").Peaks | null, durationS: number, axisS: number, positionS: number}} Picture
 */

export class Waveform {
  /** @param {string} [label] what a screen reader calls the picture; without it the picture is decoration */
  constructor(label) {
    this.canvas = element("canvas", label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" });
    this.root = element("div", { class: "waveform" }, this.canvas);
    /** @type {Picture} */
    this.picture = { peaks: null, durationS: 0, axisS: 3, positionS: 0 };
    new ResizeObserver(() => this.draw()).observe(this.root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {Partial<Picture>} picture */
  show(picture) {
    this.picture = { ...this.picture, ...picture };
    this.draw();
  }

  draw() {
    const { peaks, durationS, axisS, positionS } = this.picture;
    const { clientWidth: width, clientHeight: height } = this.root;
    const scale = window.devicePixelRatio || 1;
    if (!width || !height) return;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
    }
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const style = getComputedStyle(this.root);
    const colour = (name) => style.getPropertyValue(name).trim();
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.fillStyle = colour("--line");
    context.fillRect(0, height / 2 - 0.5, width, 1);
    if (!peaks || durationS === 0) return;

    const perPx = axisS / width;
    const playedX = positionS / perPx;
    for (let x = 0; x * perPx < durationS; x += BAR_PX + GAP_PX) {
      const loudest = peaks.loudest(x * perPx, (x + BAR_PX + GAP_PX) * perPx);
      const bar = Math.max(2, Math.sqrt(loudest) * (height - 8));
      context.fillStyle = colour(x < playedX ? "--wave-played" : "--wave");
      context.fillRect(x, (height - bar) / 2, BAR_PX, bar);
    }
    if (positionS > 0 && positionS < durationS) {
      context.fillStyle = colour("--text");
      context.fillRect(Math.min(width - 1, playedX), 0, 1, height);
    }
  }

  /** The time under a pointer. @param {PointerEvent} event */
  timeAt(event) {
    const box = this.root.getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    return Math.min(this.picture.durationS, share * this.picture.axisS);
  }
}
