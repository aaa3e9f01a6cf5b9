// A take, or the form as it stands, as the program that makes the same request.

import { byId, download, element } from "./dom.js";
import { address, speechBody } from "./http.js";
import { say } from "./language.js";

/** @typedef {import("./take.js").Take} Take */

const CLIP = "@CLIP@";

/** @param {Take} take @returns {string} */
export function asCurl(take) {
  const body = { ...speechBody(take, "wav"), ...(take.clip && { ref_audio: `data:audio/wav;base64,${CLIP}` }) };
  const [before, after] = JSON.stringify(body, null, 2).split(CLIP);
  const curl = `curl -sS ${address("v1/audio/speech")} -H 'content-type: application/json' -o speech.wav`;
  if (!take.clip) return `${curl} \\\n  -d ${shellQuoted(before)}`;
  // Piped, because a clip is too long for an argument.
  return `{ printf '%s' ${shellQuoted(before)}
  base64 < clip.wav | tr -d '\\n'
  printf '%s' ${shellQuoted(after)}
} | ${curl} -d @-`;
}

/** One word of a shell's language, whatever is in it. @param {string} text */
function shellQuoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {Take} take @returns {string} */
export function asPython(take) {
  const { input, voice = "default", response_format, instructions, speed, ...rest } = speechBody(take, "wav");
  const clip = take.clip !== null;
  const extra = Object.entries(rest).map(([name, value]) =>
    name === "ref_audio" ? `        "ref_audio": clip,` : `        "${name}": ${pythonLiteral(value)},`,
  );
  const lines = [
    ...(clip ? ["import base64", "from pathlib import Path", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${address("v1")}", api_key="")`,
    ...(clip ? [`clip = base64.b64encode(Path("clip.wav").read_bytes()).decode()`] : []),
    "with client.audio.speech.with_streaming_response.create(",
    `    model="tts-1",`,
    `    voice=${pythonLiteral(voice)},`,
    `    input=${pythonLiteral(input)},`,
    ...(instructions ? [`    instructions=${pythonLiteral(instructions)},`] : []),
    `    response_format=${pythonLiteral(response_format)},`,
    `    speed=${speed},`,
    "    extra_body={",
    ...extra,
    "    },",
    ") as response:",
    `    response.stream_to_file("speech.wav")`,
  ];
  return lines.join("\n");
}

/** JSON's strings and numbers are Python's too. */
function pythonLiteral(value) {
  return JSON.stringify(value);
}

const WRITERS = { curl: asCurl, python: asPython };

export class CodeDialog {
  /** @param {() => Take} takeToShow */
  constructor(takeToShow) {
    this.root = byId("code");
    this.language = "curl";
    this.choices = [...this.root.querySelectorAll(".choice")];
    byId("code-open").addEventListener("click", () => this.open(takeToShow()));
    byId("code-close").addEventListener("click", () => this.root.close());
    byId("code-copy").addEventListener("click", () => this.copy());
    for (const choice of this.choices) {
      choice.addEventListener("click", () => {
        this.language = choice.dataset.language;
        this.render();
      });
    }
  }

  /** @param {Take} take */
  open(take) {
    this.take = take;
    this.render();
    this.root.showModal();
  }

  render() {
    const { clip } = this.take;
    byId("code-text").textContent = WRITERS[this.language](this.take);
    byId("code-state").textContent = "";
    const onclick = () => download(clip.file, "clip.wav");
    const save = element("button", { type: "button", onclick }, say("code.clip.download"));
    byId("code-clip").replaceChildren(...(clip ? [say("code.clip"), " ", save] : []));
    for (const choice of this.choices) {
      choice.setAttribute("aria-pressed", String(choice.dataset.language === this.language));
    }
  }

  async copy() {
    try {
      // absent where the page is neither https nor localhost
      await navigator.clipboard.writeText(byId("code-text").textContent);
      byId("code-state").textContent = say("code.copied");
    } catch {
      getSelection()?.selectAllChildren(byId("code-text"));
      byId("code-state").textContent = say("code.copy.failed");
    }
  }
}
