// Plays the answers' sound, item after item, and says how much of which item has been played.
//   in   {type: "chunk", item, samples}   Float32Array at 24 kHz
//        {type: "end", item}              no more chunks of this item will come
//        {type: "stop", token}            fade out at once and forget everything that was not played
//   out  {type: "started", item, time}    context time of the item's first sample
//        {type: "progress", item, played, level}
//        {type: "ended", item, played}
//        {type: "stopped", token, items: [{item, played, received}]}
//        {type: "late", item}             the next sound did not come in time
//        {type: "tap", samples}           every sample that sounded, where the option `tap` asks for it
// `played` and `received` count samples at 24 kHz.
//
// The first chunk sounds at once. Where sound comes too late, the rest waits until enough is there to go on, a little
// more each time: the jitter buffer grows only for those who need it.

import { RATE } from "./pcm.js";
import { Resampler } from "./resample.js";

const QUANTA = 8; // rendering quanta from one report to the next, about 20 ms
const MARGIN = [0, 0.08, 0.16, 0.3]; // seconds to gather before going on, after so many late chunks

class Playback extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.tap = processorOptions.tap;
    this.items = []; // in the order in which they are heard
    this.late = 0;
    this.waiting = true;
    this.fade = 1; // what the next sample is multiplied by
    this.stopping = null;
    this.quanta = 0;
    this.energy = 0;
    this.counted = 0;
    this.port.onmessage = ({ data }) => this[data.type](data);
  }

  chunk({ item, samples }) {
    let entry = this.items.find((known) => known.item === item);
    if (!entry) {
      entry = { item, blocks: [], offset: 0, ready: 0, rendered: 0, received: 0, over: false,
                resampler: new Resampler(RATE, sampleRate) };
      this.items.push(entry);
    }
    entry.received += samples.length;
    this.store(entry, entry.resampler.push(samples));
  }

  end({ item }) {
    const entry = this.items.find((known) => known.item === item);
    if (!entry || entry.over) return;
    this.store(entry, entry.resampler.flush());
    entry.over = true;
  }

  stop({ token }) {
    this.stopping = { token };
  }

  store(entry, samples) {
    if (!samples.length) return;
    entry.blocks.push(samples);
    entry.ready += samples.length;
  }

  played(entry) {
    return Math.min(entry.received, Math.floor((entry.rendered * RATE) / sampleRate));
  }

  process(_, [output]) {
    const out = output[0];
    let filled = 0;
    while (filled < out.length && this.items.length) {
      const entry = this.items[0];
      if (this.waiting && !this.enough(entry)) break;
      if (this.waiting) this.begin(entry, filled);
      filled += this.read(entry, out, filled);
      if (entry.ready) continue;
      if (!entry.over) {
        this.starve(entry, out, filled);
        break;
      }
      this.items.shift();
      this.late = 0;
      this.waiting = true;
      this.port.postMessage({ type: "ended", item: entry.item, played: entry.received });
    }
    if (this.stopping) this.silence(out);
    if (filled) this.report(out);
    for (let channel = 1; channel < output.length; channel++) output[channel].set(out);
    return true;
  }

  enough(entry) {
    return entry.over || entry.ready > MARGIN[Math.min(this.late, MARGIN.length - 1)] * sampleRate;
  }

  begin(entry, filled) {
    this.waiting = false;
    this.fade = this.late ? 0 : 1;
    if (!entry.rendered) {
      this.port.postMessage({ type: "started", item: entry.item, time: currentTime + filled / sampleRate });
    }
  }

  read(entry, out, filled) {
    let taken = 0;
    while (filled + taken < out.length && entry.blocks.length) {
      const block = entry.blocks[0];
      const count = Math.min(out.length - filled - taken, block.length - entry.offset);
      for (let i = 0; i < count; i++) {
        out[filled + taken + i] = block[entry.offset + i] * this.fade;
        this.fade = Math.min(1, this.fade + 1 / 128);
      }
      taken += count;
      entry.offset += count;
      if (entry.offset === block.length) {
        entry.blocks.shift();
        entry.offset = 0;
      }
    }
    entry.ready -= taken;
    entry.rendered += taken;
    return taken;
  }

  starve(entry, out, filled) {
    ramp(out, filled);
    this.late += 1;
    this.waiting = true;
    this.port.postMessage({ type: "late", item: entry.item });
    this.progress(entry);
  }

  silence(out) {
    ramp(out, out.length);
    const items = this.items.map((entry) => ({ item: entry.item, played: this.played(entry),
                                               received: entry.received }));
    this.port.postMessage({ type: "stopped", token: this.stopping.token, items });
    this.items = [];
    this.late = 0;
    this.waiting = true;
    this.stopping = null;
  }

  report(out) {
    for (const sample of out) this.energy += sample * sample;
    this.counted += out.length;
    if (this.tap) this.port.postMessage({ type: "tap", samples: out.slice() });
    if (++this.quanta % QUANTA === 0 && this.items.length) this.progress(this.items[0]);
  }

  progress(entry) {
    const level = this.counted ? Math.sqrt(this.energy / this.counted) : 0;
    this.energy = this.counted = 0;
    this.port.postMessage({ type: "progress", item: entry.item, played: this.played(entry), level });
  }
}

/** Fades the first `length` samples out, so that a cut does not click. */
function ramp(out, length) {
  for (let i = 0; i < length; i++) out[i] *= 1 - (i + 1) / length;
}

registerProcessor("playback", Playback);
