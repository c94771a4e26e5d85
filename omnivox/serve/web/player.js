// The sound that is heard: one audio context for the answers and the microphone.

import { RATE, toFloat } from "./pcm.js";

const here = (name) => new URL(name, import.meta.url);

export class Player {
  #node = null;
  #starting = null;
  #stops = new Map();
  #token = 0;
  context = null;

  /**
   * on: {started(item, when), progress(item, played, level), ended(item), tap(samples)}; `when` is the time of
   * performance.now() at which the first sample leaves the loudspeaker, `played` counts samples at 24 kHz.
   */
  constructor(on, tap = false) {
    this.on = on;
    this.tap = tap;
  }

  /** Must first be called from a click or a key: browsers let no page sound before. */
  start() {
    this.#starting ??= this.#start().catch((error) => {
      this.#starting = null;
      throw error;
    });
    if (this.context?.state !== "running") this.context?.resume();
    return this.#starting;
  }

  async #start() {
    if (navigator.audioSession) navigator.audioSession.type = "play-and-record"; // phones: not the earpiece
    this.context = new AudioContext({ latencyHint: "interactive" });
    await Promise.all(["./capture-worklet.js", "./playback-worklet.js"].map((name) =>
      this.context.audioWorklet.addModule(here(name))));
    this.#node = new AudioWorkletNode(this.context, "playback", {
      numberOfInputs: 0, outputChannelCount: [1], processorOptions: { tap: this.tap } });
    this.#node.port.onmessage = ({ data }) => this.#hear(data);
    this.#node.connect(this.context.destination);
  }

  /** pcm: Int16Array at 24 kHz. False where nothing can sound. */
  play(item, pcm) {
    if (!this.#node) return false;
    const samples = toFloat(pcm);
    this.#node.port.postMessage({ type: "chunk", item, samples }, [samples.buffer]);
    return true;
  }

  end(item) {
    this.#node?.port.postMessage({ type: "end", item });
  }

  /** Silence now. Resolves to [{item, played, received}] of the items that had not ended. */
  stop() {
    if (!this.#node) return Promise.resolve([]);
    const token = ++this.#token;
    return new Promise((resolve) => {
      this.#stops.set(token, resolve);
      this.#node.port.postMessage({ type: "stop", token });
      if (this.context.state !== "running") resolve([]); // a phone call, say: it answers only afterwards
    });
  }

  /** Samples at 24 kHz that have been rendered but not yet left the loudspeaker. */
  get delay() {
    return (this.context?.outputLatency || this.context?.baseLatency || 0) * RATE;
  }

  /** A file's sound, through the loudspeaker, a little softer than an answer; returns what stops it. */
  sample(buffer) {
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(new GainNode(this.context, { gain: 0.6 })).connect(this.context.destination);
    source.start();
    return () => source.stop();
  }

  #hear(data) {
    switch (data.type) {
      case "started":
        return this.on.started(data.item, this.#clock(data.time));
      case "progress":
        return this.on.progress(data.item, data.played, data.level);
      case "ended":
        return this.on.ended(data.item);
      case "tap":
        return this.on.tap(data.samples);
      case "stopped":
        this.#stops.get(data.token)?.(data.items);
        this.#stops.delete(data.token);
    }
  }

  #clock(time) {
    const stamp = this.context.getOutputTimestamp?.();
    if (stamp?.contextTime && stamp.performanceTime) {
      return stamp.performanceTime + 1000 * (time - stamp.contextTime);
    }
    return performance.now() + 1000 * (time - this.context.currentTime + this.delay / RATE);
  }
}
