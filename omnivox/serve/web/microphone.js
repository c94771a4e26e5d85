// The microphone, asked for only when somebody wants to talk.

const WISHES = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

export class Microphone {
  #stream = null;
  #source = null;
  #node = null;
  #flushed = null;
  #opening = null;

  /** onframe(pcm: Int16Array at 24 kHz); onlost(): it was unplugged or taken away. */
  constructor(onframe, onlost) {
    this.onframe = onframe;
    this.onlost = onlost;
  }

  get open() {
    return this.#node !== null;
  }

  /** Asks for the microphone and starts it; throws what `explain` puts into words. */
  start(context) {
    if (this.open) return Promise.resolve();
    this.#opening ??= this.#start(context).finally(() => (this.#opening = null));
    return this.#opening;
  }

  async #start(context) {
    if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "SecurityError");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: WISHES });
    this.#stream = stream;
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      this.stop();
      this.onlost();
    });
    this.#source = context.createMediaStreamSource(stream);
    const node = new AudioWorkletNode(context, "capture", { numberOfInputs: 1, channelCount: 1,
                                                            channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => {
      if (data.pcm.length) this.onframe(data.pcm);
      if (data.flushed) this.#flushed?.();
    };
    this.#source.connect(node).connect(context.destination); // silent: a node that leads nowhere may not run
    this.#node = node;
  }

  /** Resolves once the last samples have been given to onframe. */
  flush() {
    if (!this.open) return Promise.resolve();
    return new Promise((resolve) => {
      this.#flushed = resolve;
      this.#node.port.postMessage("flush");
    });
  }

  stop() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#source?.disconnect();
    this.#node?.disconnect();
    this.#flushed?.();
    this.#stream = this.#source = this.#node = this.#flushed = null;
  }
}

/** One sentence on why there is no microphone, and what helps. */
export function explain(error) {
  const beside = "You can type or play an example meanwhile.";
  switch (error.name) {
    case "NotAllowedError":
      return `The microphone was refused. Allow it in the browser's settings for this page, then try again. ${beside}`;
    case "NotFoundError":
      return `No microphone was found. Plug one in, then try again. ${beside}`;
    case "NotReadableError":
      return `Another program holds the microphone. Close it, then try again. ${beside}`;
    case "SecurityError":
      return `Browsers give the microphone only to pages over https or from localhost. ${beside}`;
    default:
      return `The microphone could not be started (${error.message || error.name}). ${beside}`;
  }
}
