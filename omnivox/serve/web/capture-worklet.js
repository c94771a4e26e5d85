// The microphone in frames of 40 ms: mono, 24 kHz, 16 bits, with the level of each.
//   in   "flush"                 what is left, at once, as a shorter frame, marked `flushed`
//   out  {pcm: Int16Array, flushed}

import { FRAME, RATE } from "./pcm.js";
import { Resampler } from "./resample.js";

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.port.onmessage = () => this.give(true);
  }

  process([input]) {
    if (!input.length) return true; // the microphone has not started, or was unplugged
    for (const sample of this.resampler.push(input[0])) {
      this.frame[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled === FRAME) this.give(false);
    }
    return true;
  }

  give(flushed) {
    const pcm = this.frame.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage({ pcm, flushed }, [pcm.buffer]);
  }
}

registerProcessor("capture", Capture);
