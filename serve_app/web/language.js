// The page's language, chosen once from the browser's, and its texts, numbers and faults in words.

import { CHINESE } from "./chinese.js";
import { ENGLISH } from "./english.js";

export const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
const TEXTS = language === "zh" ? CHINESE : ENGLISH;

/** A text of the page. @param {string} key @param {Record<string, string | number>} [values] */
export function say(key, values = {}) {
  const text = TEXTS[key];
  if (text === undefined) throw new Error(`no text "${key}"`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Fill in `data-say="key"` (content) and `data-say-attribute="key"`, for attributes with text in them. */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const attribute of ["placeholder", "title", "aria-label"]) {
    for (const node of root.querySelectorAll(`[data-say-${attribute}]`)) {
      node.setAttribute(attribute, say(node.getAttribute(`data-say-${attribute}`)));
    }
  }
}

/** Seconds with one decimal, as `1.2`. */
export function seconds(value) {
  return value.toFixed(1);
}

/** @param {number} count */
export function bytes(count) {
  return count < 1_000_000
    ? say("unit.kb", { n: Math.round(count / 1000) })
    : say("unit.mb", { n: (count / 1_000_000).toFixed(1) });
}

/** @param {number} ms */
export function milliseconds(ms) {
  return ms < 9999.5 ? say("unit.ms", { n: Math.round(ms) }) : say("unit.s", { n: seconds(ms / 1000) });
}

/** What went wrong, and what to do. @param {import("./http.js").Fault} fault */
export function faultInWords(fault) {
  const known = TEXTS[`fault.${fault.code}`];
  // The server's own sentence names the field at fault; it is English, so only there it is enough alone.
  const words = known ?? (fault.message || say("fault.other", { status: fault.status }));
  return fault.retryAfterS ? `${words} ${say("fault.retry", { seconds: fault.retryAfterS })}` : words;
}
