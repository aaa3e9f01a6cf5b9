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
    document.addEventListener("visibilitychange", () => this.show(this.open));
  }

  /** @param {boolean} open */
  show(open) {
    this.open = open;
    clearTimeout(this.timer);
    if (open && !document.hidden) this.refresh();
  }

  async refresh() {
    const [server, service] = await Promise.all([this.ask(), askService()]);
    if (!this.open || document.hidden) return;
    const own = table(say("status.page"), this.ownNumbers());
    byId("status-tables").replaceChildren(table(say("status.server"), server), ...service, own);
    clearTimeout(this.timer);
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

/** The tables of the whole service, or the reason why there are none. @returns {Promise<HTMLElement[]>} */
async function askService() {
  try {
    return serviceTables(await (await request("v1/status")).json());
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return [table(say("status.stages"), [[say("status.server"), faultInWords(error)]])];
  }
}

function serviceTables({ stages, replicas, recent, window_s, ttfa_ms, audible_ttfa_ms }) {
  const rows = Object.entries(stages).map(([name, stage]) => [
    say(`status.${name}`),
    stage ? say(`status.${name}.value`, stage) : say("status.silent"),
  ]);
  const each = replicas.map((replica) => [replica.id, say("status.replica.value", replica)]);
  return [
    table(say("status.stages"), rows),
    table(say("status.recent", { window_s }), [
      [say("status.ttfa"), percentiles(ttfa_ms)],
      [say("status.audible"), percentiles(audible_ttfa_ms)],
      [say("status.requests"), say("status.requests.value", recent)],
      [say("status.underruns"), String(recent.underruns)],
    ]),
    table(say("status.replicas"), each.length ? each : [[say("status.synthesis"), say("status.none")]]),
  ];
}

/** @param {{count: number, p50: number | null, p95: number | null, p99: number | null}} found */
function percentiles({ count, p50, p95, p99 }) {
  if (count === 0) return "–";
  return say("status.percentiles", { p50: milliseconds(p50), p95: milliseconds(p95), p99: milliseconds(p99) });
}

function table(title, rows) {
  const body = rows.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)),
  );
  return element("table", {}, element("caption", {}, title), element("tbody", {}, ...body));
}
