// What will be said for the text, asked while it is written; what is said otherwise than written is marked.

import { byId, element } from "./dom.js";
import { Fault, request } from "./http.js";
import { say } from "./language.js";

const REST_MS = 500;

export class ReadingPreview {
  constructor() {
    this.timer = 0;
    this.asking = new AbortController();
    this.text = "";
  }

  /** Ask once the text rests; an answer to an older text is dropped. @param {string} text empty: nothing to ask */
  read(text) {
    if (text === this.text) return;
    this.text = text;
    clearTimeout(this.timer);
    this.asking.abort();
    if (!text) this.show([]);
    else this.timer = setTimeout(() => this.ask(text), REST_MS);
  }

  async ask(text) {
    this.asking = new AbortController();
    const { signal } = this.asking;
    const headers = { "content-type": "application/json" };
    try {
      const init = { method: "POST", headers, body: JSON.stringify({ input: text }), signal };
      const { pieces } = await (await request("v1/audio/speech/reading", init)).json();
      if (!signal.aborted) this.show(pieces.flatMap((piece) => piece.parts));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Fault)) throw error;
      // only a preview: what is wrong is said where the text is spoken
      this.show([]);
    }
  }

  /** @param {{written: string, spoken: string}[]} parts */
  show(parts) {
    const changed = parts.filter(isChanged).length;
    // the count is what a screen reader announces; the text itself is there to be read
    byId("reading-count").textContent =
      parts.length === 0 ? "" : say(["reading.same", "reading.one"][changed] ?? "reading.many", { count: changed });
    byId("reading").replaceChildren(
      ...(changed ? parts : []).map((part) =>
        isChanged(part) ? element("mark", { title: say("reading.written", part) }, part.spoken) : part.spoken,
      ),
    );
  }
}

/** @param {{written: string, spoken: string}} part */
function isChanged({ written, spoken }) {
  return written.trim() !== spoken.trim();
}
