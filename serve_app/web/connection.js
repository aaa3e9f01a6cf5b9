// Whether the server is there, shown at the top; a banner while it is not.

import { byId } from "./dom.js";
import { connection, Fault, request } from "./http.js";
import { say } from "./language.js";

const CALM_MS = 20_000;
const ANXIOUS_MS = 2500;

export class ServerWatch {
  constructor() {
    this.timer = 0;
    byId("offline").textContent = say("offline");
    connection.addEventListener("lost", () => this.show("offline"));
    window.addEventListener("offline", () => this.show("offline"));
    window.addEventListener("online", () => this.ask());
    document.addEventListener("visibilitychange", () => document.hidden || this.ask());
  }

  start() {
    this.show("checking");
    return this.ask();
  }

  async ask() {
    clearTimeout(this.timer);
    try {
      await request("ready");
      this.show("ready");
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      // an answer that is no 503 is still an answer: a proxy that hides /ready, say
      this.show(error.code === "unreachable" ? "offline" : error.status === 503 ? "starting" : "ready");
    }
  }

  /** @param {"checking" | "ready" | "starting" | "offline"} state */
  show(state) {
    const server = byId("server");
    if (server.dataset.state !== state || !server.textContent) {
      server.dataset.state = state;
      server.textContent = say(`server.${state}`);
    }
    byId("offline").hidden = state !== "offline";
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.ask(), state === "ready" ? CALM_MS : ANXIOUS_MS);
  }
}
