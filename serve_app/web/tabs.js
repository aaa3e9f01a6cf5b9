// The three views; the address bar remembers which.

import { byId } from "./dom.js";

export class Tabs {
  /** @param {string[]} names @param {(name: string) => void} onshow */
  constructor(names, onshow) {
    this.names = names;
    this.onshow = onshow;
    names.forEach((name, index) => {
      const tab = byId(`tab-${name}`);
      tab.addEventListener("click", () => this.show(name));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step === undefined) return;
        this.show(names[(index + step + names.length) % names.length]);
        byId(`tab-${this.current}`).focus();
      });
    });
    const asked = location.hash.slice(1);
    this.show(names.includes(asked) ? asked : names[0]);
  }

  /** @param {string} name */
  show(name) {
    this.current = name;
    document.body.dataset.view = name;
    for (const other of this.names) {
      const chosen = other === name;
      byId(`view-${other}`).hidden = !chosen;
      byId(`tab-${other}`).setAttribute("aria-selected", String(chosen));
      byId(`tab-${other}`).tabIndex = chosen ? 0 : -1;
    }
    history.replaceState(null, "", name === this.names[0] ? location.pathname + location.search : `#${name}`);
    this.onshow(name);
  }
}
