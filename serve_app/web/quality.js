// The server's report on a clip that was kept as a voice.

import { element } from "./dom.js";
import { say } from "./language.js";

const UNITS = { s: "unit.s", ms: "unit.ms", db: "unit.db", hz: "unit.hz" };
const KNOWN = {
  duration_s: "quality.duration_s",
  used_s: "quality.used_s",
  speech_s: "quality.speech_s",
  clipped_share: "quality.clipped_share",
  bandwidth_hz: "quality.bandwidth_hz",
  second_speaker: "quality.second_speaker",
  denoised: "quality.denoised",
  snr_db: "quality.snr_db",
  loudness_db: "quality.loudness_db",
};

/**
 * Every number of the report with its unit, then the warnings. A field that this page does not know keeps the server's
 * name, so that a newer server's report is still shown whole.
 * @param {Record<string, unknown>} quality
 */
export function qualityReport(quality) {
  const facts = element("dl", { class: "facts" });
  for (const [name, value] of Object.entries(quality)) {
    if (typeof value !== "number" && typeof value !== "string" && typeof value !== "boolean") continue;
    const { title, text } = fact(name, value);
    facts.append(element("dt", {}, title), element("dd", {}, text));
  }
  const warnings = Array.isArray(quality.warnings) ? quality.warnings : [];
  const items = warnings.map((warning) => element("li", {}, wordsOf(warning)));
  const verdict = items.length
    ? element("ul", { class: "notice bad" }, ...items)
    : element("p", { class: "notice" }, say("quality.nowarnings"));
  return element("div", {}, element("h3", {}, say("quality")), facts, verdict);
}

function fact(name, value) {
  const title = name in KNOWN ? say(KNOWN[name]) : name.replaceAll("_", " ");
  if (typeof value === "boolean") return { title, text: say(value ? "yes" : "no") };
  if (typeof value === "string") return { title, text: value };
  const kind = name.slice(name.lastIndexOf("_") + 1);
  if (kind === "share") return { title, text: `${(100 * value).toFixed(2)} %` };
  const unit = UNITS[kind];
  const text = String(Math.round(value * 100) / 100);
  return { title, text: unit ? say(unit, { n: text }) : text };
}

/** A warning is a sentence, or an object that has one. */
function wordsOf(warning) {
  return typeof warning === "string" ? warning : String(warning?.message ?? JSON.stringify(warning));
}
