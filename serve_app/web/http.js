// Every request this page makes, and its failures.

import { PcmReader, SAMPLE_RATE_HZ } from "./pcm.js";

const KEY = "cosyvoice-api-key";

/** A failure with the server's own words. code: the contract's, or "unreachable", "broken", "odd_answer". */
export class Fault extends Error {
  /** @param {{code: string, message?: string, status?: number, retryAfterS?: number | null}} about */
  constructor({ code, message = "", status = 0, retryAfterS = null }) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** Told of every request that reached the server or did not. */
export const connection = new EventTarget();

export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value.trim()),
};

/** An address beside this page, wherever the page is mounted. */
export function address(path) {
  return new URL(path, document.baseURI);
}

/**
 * `fetch`, with the key and with failures as `Fault`. An abort stays an AbortError.
 * @param {string} path @param {RequestInit} [init]
 */
export async function request(path, init = {}) {
  const headers = new Headers(init.headers);
  if (apiKey.get()) headers.set("authorization", `Bearer ${apiKey.get()}`);
  let response;
  try {
    response = await fetch(address(path), { ...init, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    connection.dispatchEvent(new Event("lost"));
    throw new Fault({ code: "unreachable" });
  }
  connection.dispatchEvent(new Event("reached"));
  if (!response.ok) throw await faultOf(response);
  return response;
}

/** @param {Response} response */
async function faultOf(response) {
  const retryAfterS = Number.parseInt(response.headers.get("retry-after") ?? "", 10) || null;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // not ours: a proxy's page, say
  }
  return new Fault({
    code: error.code ?? `http_${response.status}`,
    message: typeof error.message === "string" ? error.message : "",
    status: response.status,
    retryAfterS,
  });
}

/**
 * The request body of a take.
 * @param {import("./take.js").Take} take @param {string} format
 */
export function speechBody(take, format) {
  const { instructions, voice, ...rest } = take.order;
  const body = { ...rest, response_format: format, sample_rate: SAMPLE_RATE_HZ };
  if (instructions) body.instructions = instructions;
  if (!take.clip) return { ...body, voice };
  return { ...body, ...clipFields(take.clip) };
}

/** A clip in the fields of a request. @param {import("./take.js").Attachment} clip */
export function clipFields({ base64, transcript, denoise }) {
  const fields = { ref_audio: `data:audio/wav;base64,${base64}`, denoise };
  return transcript ? { ...fields, ref_text: transcript } : fields;
}

/** @param {object} body @param {AbortSignal} [signal] */
export function postSpeech(body, signal) {
  const headers = { "content-type": "application/json" };
  return request("v1/audio/speech", { method: "POST", headers, body: JSON.stringify(body), signal });
}

/**
 * Fill a take from the server, piece by piece, and leave it complete, stopped or failed. Never throws.
 * @param {import("./take.js").Take} take @param {AbortSignal} signal
 */
export async function receive(take, signal) {
  try {
    const response = await postSpeech(speechBody(take, "pcm"), signal);
    const rate = response.headers.get("x-sample-rate");
    if (!response.body || (rate && Number(rate) !== SAMPLE_RATE_HZ)) throw new Fault({ code: "odd_answer" });
    take.stages = serverStages(response.headers.get("server-timing") ?? "");
    take.become("receiving");
    await pour(response.body, take);
    take.become("complete");
  } catch (error) {
    if (error instanceof Fault) take.become("failed", error);
    else if (signal.aborted) take.become("stopped");
    else throw error;
  }
}

/** @param {ReadableStream<Uint8Array>} body @param {import("./take.js").Take} take */
async function pour(body, take) {
  const pcm = new PcmReader();
  const reader = body.getReader();
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new Fault({ code: "broken" });
    }
    if (part.done) break;
    take.add(pcm.read(part.value), part.value.length);
  }
  if (pcm.carry !== null) throw new Fault({ code: "broken" });
}

/** `preprocess;dur=41.2, first_audio;dur=230` to names and milliseconds. @param {string} header */
export function serverStages(header) {
  return [...header.matchAll(/([\w-]+)\s*;[^,]*?dur=([\d.]+)/g)].map(([, name, ms]) => ({ name, ms: Number(ms) }));
}
