// Every take of this page, newest first, and two of them side by side.

import { byId, element, icon } from "./dom.js";
import { say, seconds } from "./language.js";
import { SAMPLE_RATE_HZ } from "./pcm.js";
import { Waveform } from "./waveform.js";

/** @typedef {{take: import("./take.js").Take, number: number, item: HTMLElement, render: () => void}} Entry */

export class TakeList {
  /** @param {import("./studio.js").Studio} studio */
  constructor(studio) {
    this.studio = studio;
    /** @type {Entry[]} */
    this.entries = [];
    this.made = 0;
    /** @type {Record<"A" | "B", Entry | null>} */
    this.marked = { A: null, B: null };
    /** To be drawn again. @type {Set<Entry>} */
    this.changed = new Set();
    /** @type {import("./take.js").Take | null} */
    this.heard = null;
    /** @type {(() => void)[]} */
    this.comparison = [];
    studio.addEventListener("take", (event) => this.add(event.detail));
    studio.addEventListener("remove", (event) => this.drop(event.detail));
    studio.listen.addEventListener("show", () => this.draw(...this.entries));
    studio.listen.addEventListener("draw", () => this.renderChanged());
  }

  entryFor(take) {
    return this.entries.find((entry) => entry.take === take);
  }

  /** @param {import("./take.js").Take} take */
  add(take) {
    this.made += 1;
    const entry = this.entryOf(take, this.made);
    this.entries.unshift(entry);
    byId("takes").prepend(entry.item);
    for (const event of ["grow", "change"]) take.addEventListener(event, () => this.draw(entry));
    this.render();
  }

  drop(take) {
    const entry = this.entryFor(take);
    if (!entry) return;
    this.entries = this.entries.filter((other) => other !== entry);
    entry.item.remove();
    for (const side of ["A", "B"]) if (this.marked[side] === entry) this.marked[side] = null;
    this.render();
    (byId("takes").querySelector("button") ?? byId("text")).focus();
  }

  /** @returns {Entry} */
  entryOf(take, number) {
    const { studio } = this;
    const waveform = new Waveform();
    const text = element("span", { class: "text" });
    const about = element("span", { class: "hint" });
    const title = element("button", {
      type: "button",
      class: "title",
      onclick: () => studio.listen.show(take),
    });
    title.append(element("span", { class: "number" }, String(number)), text);
    const play = this.button("play", say("takes.play", { number }), () => {
      studio.listen.show(take);
      studio.listen.toggle();
    });
    const remove = this.button("remove", say("takes.remove", { number }), () => studio.remove(take));
    const entry = { take, number, item: element("li", { class: "take" }), render: () => {} };
    const marks = ["A", "B"].map((side) => this.markButton(entry, side));
    entry.item.append(title, waveform.root, about, element("span", { class: "tools" }, play, ...marks, remove));
    entry.render = () => {
      waveform.show(pictureOf(take, studio.listen));
      text.textContent = take.order.input.trim().slice(0, 120);
      title.setAttribute("aria-label", say("takes.show", { number, text: text.textContent.slice(0, 60) }));
      about.textContent = [take.voiceLabel, say("unit.s", { n: seconds(take.durationS) })].join(" · ");
      entry.item.classList.toggle("shown", studio.listen.take === take);
      play.disabled = take.numSamples === 0;
      marks.forEach((mark, i) => mark.setAttribute("aria-pressed", String(this.marked["AB"[i]] === entry)));
    };
    return entry;
  }

  button(drawing, label, onclick) {
    const made = element("button", { type: "button", class: "bare", "aria-label": label, title: label, onclick });
    made.append(icon(drawing));
    return made;
  }

  markButton(entry, side) {
    const label = say("takes.mark", { number: entry.number, side });
    const onclick = () => {
      const other = side === "A" ? "B" : "A";
      if (this.marked[other] === entry) this.marked[other] = null;
      this.marked[side] = this.marked[side] === entry ? null : entry;
      this.render();
    };
    return element("button", { type: "button", class: "bare mark", "aria-label": label, title: label, onclick }, side);
  }

  /** Rows and the comparison, after anything but sound changed. */
  render() {
    byId("takes-hint").textContent = say(this.entries.length > 1 ? "takes.compare.hint" : "takes.none");
    const { A, B } = this.marked;
    byId("compare").hidden = !(A && B);
    if (A && B) this.renderComparison({ A, B });
    else this.comparison = [];
    this.draw(...this.entries);
  }

  /** @param {Record<"A" | "B", Entry>} pair */
  renderComparison(pair) {
    this.comparison = [];
    const sides = Object.entries(pair).map(([side, { take }]) => {
      const waveform = new Waveform();
      const play = element("button", { type: "button", onclick: () => this.hear(take, 0) });
      play.append(icon("play"), say("compare.play", { side }));
      const facts = element("dl", { class: "facts" });
      this.comparison.push(() => {
        const axisS = Math.max(pair.A.take.durationS, pair.B.take.durationS, 1);
        waveform.show({ ...pictureOf(take, this.studio.listen), axisS });
      });
      for (const [key, values] of factsOf(pair.A.take, pair.B.take)) {
        const value = values[side === "A" ? 0 : 1];
        facts.append(element("dt", {}, say(key)), element("dd", { class: values[0] !== values[1] && "differs" }, value));
      }
      return element("div", { class: "side-of-two" }, element("div", { class: "row" }, play), waveform.root, facts);
    });
    const change = element("button", { type: "button", onclick: () => this.switchOver(pair) }, say("compare.switch"));
    byId("compare").replaceChildren(...sides, element("div", { class: "row wide" }, change));
  }

  hear(take, sample) {
    this.studio.player.play(take, Math.min(sample, Math.max(0, take.numSamples - 1)));
    this.studio.listen.show(take);
  }

  /** From one of two takes to the other, at the same second. */
  switchOver({ A, B }) {
    const { player } = this.studio;
    const next = player.take === A.take ? B.take : A.take;
    const playsOne = player.playing && (player.take === A.take || player.take === B.take);
    this.hear(next, playsOne ? Math.round(player.positionS * SAMPLE_RATE_HZ) : 0);
  }

  /** Have these drawn with the next picture. @param {(Entry | undefined)[]} entries */
  draw(...entries) {
    for (const entry of entries) if (entry) this.changed.add(entry);
    this.studio.listen.update();
  }

  renderChanged() {
    const { player } = this.studio;
    // what plays moves, and what played before has a playhead to lose
    for (const take of [player.take, this.heard]) {
      const entry = this.entryFor(take);
      if (entry) this.changed.add(entry);
    }
    this.heard = player.take;
    for (const entry of this.changed) entry.render();
    for (const render of this.comparison) render();
    this.changed.clear();
  }
}

function pictureOf(take, listen) {
  const positionS = listen.player.take === take ? listen.player.positionS : 0;
  return { peaks: take.peaks, durationS: take.durationS, axisS: Math.max(take.durationS, 1), positionS };
}

/** What two takes differ in. @returns {[string, [string, string]][]} */
function factsOf(a, b) {
  const both = (value) => [value(a), value(b)];
  const denoise = both(({ clip }) => (clip ? say(`clip.denoise.${clip.denoise}`) : say("compare.none")));
  return [
    ["compare.voice", both((take) => take.voiceLabel)],
    ...(a.clip || b.clip ? [["clip.denoise", denoise]] : []),
    ["compare.speed", both((take) => `${take.order.speed.toFixed(2)}×`)],
    ["compare.instructions", both((take) => take.order.instructions || say("compare.none"))],
    ["compare.seed", both((take) => String(take.order.seed))],
    ["compare.duration", both((take) => say("unit.s", { n: seconds(take.durationS) }))],
    ["number.first", both((take) => (take.firstSoundMs === null ? "–" : say("unit.ms", { n: Math.round(take.firstSoundMs) })))],
    ["compare.text", both((take) => take.order.input.trim().slice(0, 80))],
  ];
}
