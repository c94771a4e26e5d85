// A client of the Realtime protocol: one socket, its state, and how it comes back.
//   "state"   {state: connecting | open | waiting | closed, cause, seconds}   cause: what `CAUSES` names
//   "event"   what the server sent, parsed

import { toBase64 } from "./pcm.js";

const DELAYS = [0.5, 1, 2, 4, 8, 15, 15, 15]; // seconds before the next try
const SENDABLE = /^[\w!#$%&'*+.^`|~-]*$/; // what a subprotocol may consist of
const BEHIND = 1 << 20; // bytes not yet sent, beyond which sound is left out: about 15 seconds of it

// Why a connection is missing. `retry`: whether to try again without being asked.
export const CAUSES = {
  lost: { retry: true, text: "The connection was lost." },
  away: { retry: true, text: "The server is shutting down." },
  full: { retry: true, text: "The server is full: all its places are taken." },
  unready: { retry: true, text: "The server is starting; its model is not loaded yet." },
  down: { retry: true, text: "The server cannot be reached." },
  often: { retry: true, text: "The server was asked too often." },
  foreign: { retry: false, text: "The server does not serve pages at this address." },
  limit: { retry: false, text: "The server ended the conversation." },
  key: { retry: false, text: "This server asks for an API key." },
  badKey: { retry: false, text: "The server did not accept this API key." },
  oddKey: { retry: false, text: "This API key has characters that a browser cannot send." },
};

export class Realtime extends EventTarget {
  #socket = null;
  #tries = 0;
  #timer = 0;
  #count = 0;
  #attempt = 0; // what was begun before the latest attempt has no say any more
  state = "closed";
  cause = null;
  key = "";
  model = "";

  /** base: the page's address; the protocol is found beside it, at v1/realtime. */
  constructor(base) {
    super();
    this.base = base;
    addEventListener("online", () => this.state === "waiting" && this.connect());
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", ({ persisted }) => persisted && this.connect());
  }

  get open() {
    return this.state === "open";
  }

  async connect() {
    if (this.open || this.state === "connecting") return;
    clearTimeout(this.#timer);
    const attempt = ++this.#attempt;
    if (!SENDABLE.test(this.key)) return this.#lose("oddKey");
    this.#become("connecting");
    try {
      if (!this.model) await this.#ask();
    } catch (refusal) {
      return attempt === this.#attempt && this.#lose(known(refusal));
    }
    if (attempt !== this.#attempt) return;
    const address = new URL("v1/realtime", this.base);
    address.protocol = address.protocol.replace("http", "ws");
    address.searchParams.set("model", this.model);
    const protocols = this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : ["realtime"];
    const socket = new WebSocket(address, protocols);
    this.#socket = socket;
    let greeted = false;
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      const event = JSON.parse(data);
      if (event.type === "session.created") {
        greeted = true;
        this.#tries = 0;
        this.#become("open");
      }
      this.dispatchEvent(new CustomEvent("event", { detail: event }));
    };
    socket.onclose = async ({ code, reason }) => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      const cause = code === 1006 && !greeted ? await this.#diagnose() : classify(code, reason);
      if (attempt === this.#attempt) this.#lose(cause, reason);
    };
  }

  /** Closes and does not come back by itself. */
  close() {
    clearTimeout(this.#timer);
    this.#attempt += 1;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.#become("closed");
  }

  /** Sends one event; false where there is no connection. */
  send(type, fields = {}) {
    if (!this.open) return false;
    const event = { type, event_id: `page_${++this.#count}`, ...fields };
    this.#socket.send(JSON.stringify(event));
    this.dispatchEvent(new CustomEvent("sent", { detail: event }));
    return event.event_id;
  }

  /** pcm: Int16Array at 24 kHz. Left out where the line is too slow to carry it. */
  append(pcm) {
    if (!this.open || this.#socket.bufferedAmount > BEHIND) return false;
    return this.send("input_audio_buffer.append", { audio: toBase64(pcm) });
  }

  async #get(path) {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    return fetch(new URL(path, this.base), { headers, cache: "no-store" });
  }

  async #ask() {
    const answer = await this.#get("v1/models");
    if (answer.status === 401) throw new Error(this.key ? "badKey" : "key");
    if (!answer.ok) throw new Error({ 403: "foreign", 429: "often", 503: "unready" }[answer.status] ?? "down");
    this.model = (await answer.json()).data[0].id;
  }

  /** A browser does not tell why a handshake failed, so ask in another way. */
  async #diagnose() {
    try {
      await this.#ask();
      return (await this.#get("readyz")).ok ? "full" : "unready";
    } catch (refusal) {
      return known(refusal);
    }
  }

  #lose(cause, reason = "") {
    if (!CAUSES[cause].retry || this.#tries >= DELAYS.length) return this.#become("closed", cause, reason);
    const seconds = DELAYS[this.#tries++] * (0.8 + 0.4 * Math.random()); // so that not all come back at once
    this.#become("waiting", cause, reason, seconds);
    this.#timer = setTimeout(() => this.connect(), 1000 * seconds);
  }

  #become(state, cause = null, reason = "", seconds = 0) {
    this.state = state;
    this.cause = cause;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, cause, reason, seconds } }));
  }
}

function known(refusal) {
  return refusal.message in CAUSES ? refusal.message : "down";
}

function classify(code, reason) {
  if (code === 1013) return "full";
  if (code === 1001 || code === 1012) return "away";
  if (code === 1008 && /key/i.test(reason)) return "badKey";
  return code === 1006 || code === 1011 ? "lost" : "limit";
}
