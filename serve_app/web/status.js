// For operators: what the server says of itself, and what this page measured.

import { byId, element } from "./dom.js";
import { Fault, request } from "./http.js";
import { faultInWords, milliseconds, say } from "./language.js";

const PERIOD_MS = 2000;

export class StatusView {
  /** @param {import("./studio.js").Studio} studio */
  constructor(studio) {
    this.studio = studio;
    this.open = false;
    this.timer = 0;
  }

  /** @param {boolean} open */
  show(open) {
    this.open = open;
    clearTimeout(this.timer);
    if (open) this.refresh();
  }

  async refresh() {
    const server = await this.ask();
    if (!this.open) return;
    byId("status-tables").replaceChildren(table("status.server", server), table("status.page", this.ownNumbers()));
    byId("status-updated").textContent = say("status.updated", { time: new Date().toLocaleTimeString() });
    this.timer = setTimeout(() => this.refresh(), PERIOD_MS);
  }

  /** @returns {Promise<[string, string][]>} */
  async ask() {
    const asked = performance.now();
    try {
      const ready = await (await request("ready")).json();
      const roundTrip = performance.now() - asked;
      const { data } = await (await request("v1/models")).json();
      return [
        [say("status.ready"), say(ready.ready === false ? "status.ready.no" : "status.ready.yes")],
        [say("status.roundtrip"), milliseconds(roundTrip)],
        [say("status.model"), data[0]?.id ?? "–"],
        [say("status.rate"), data[0]?.sample_rate ? `${data[0].sample_rate} Hz` : "–"],
        [say("status.voices"), String(this.studio.voices.voices.length)],
        ...flat(ready).filter(([name]) => name !== "ready"),
      ];
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      return [[say("status.ready"), `${say("status.ready.no")}. ${faultInWords(error)}`]];
    }
  }

  /** @returns {[string, string][]} */
  ownNumbers() {
    const { takes } = this.studio;
    const firsts = takes.map((take) => take.firstSoundMs).filter((ms) => ms !== null);
    const underruns = takes.reduce((total, take) => total + take.underruns, 0);
    return [
      [say("status.takes"), String(takes.length)],
      [say("status.first.median"), firsts.length ? milliseconds(percentile(firsts, 0.5)) : "–"],
      [say("status.first.p95"), firsts.length ? milliseconds(percentile(firsts, 0.95)) : "–"],
      [say("status.underruns"), String(underruns)],
      [say("status.failed"), String(takes.filter((take) => take.state === "failed").length)],
    ];
  }
}

/** The nearest rank. @param {number[]} values @param {number} share */
export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

/** Whatever else the server tells, nested names joined: `{a: {b: 1}}` is `a b` = 1. @returns {[string, string][]} */
function flat(value, name = "") {
  if (value === null || typeof value !== "object") {
    const text = typeof value === "number" ? String(Math.round(value * 1000) / 1000) : String(value);
    return [[name.trim().replaceAll("_", " "), text]];
  }
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, `${name} ${key}`));
}

function table(title, rows) {
  const body = rows.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)),
  );
  return element("table", {}, element("caption", {}, say(title)), element("tbody", {}, ...body));
}
