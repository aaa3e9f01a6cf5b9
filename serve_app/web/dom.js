// The few lines that building elements takes without a framework.

/** The element of that id. @returns {any} */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`no element #${id}`);
  return element;
}

/** `element("button", {type: "button", onclick: f}, "Stop")`: `on...` are listeners, false and null are left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  play: "M5 3.5v9l8-4.5z",
  stop: "M4 4h8v8H4z",
  download: "M8 2v8M4.5 7 8 10.5 11.5 7M3 13.5h10",
  code: "M6 4 2 8l4 4M10 4l4 4-4 4",
  remove: "M4 4l8 8M12 4l-8 8",
  microphone: "M8 1.5a2 2 0 0 1 2 2v4a2 2 0 0 1-4 0v-4a2 2 0 0 1 2-2zM4 7.5a4 4 0 0 0 8 0M8 11.5v3",
  file: "M4 1.5h5l3 3v10H4zM9 1.5v3h3",
};
const FILLED = new Set(["play", "stop"]);

/** A 16 px drawing beside a text or a label; screen readers skip it. @param {keyof typeof ICONS} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", FILLED.has(name) ? "icon filled" : "icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Offer a blob as a file. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
