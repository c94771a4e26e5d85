// A streaming sample-rate converter: windowed sinc, one exact filter for each phase of the rational ratio.
// Any chunking gives the same samples. It runs in both worklets and in tests.

const ZEROS = 20; // zero crossings to each side
const ROLLOFF = 0.94; // the passband's edge, of the lower Nyquist frequency

export class Resampler {
  constructor(from, to) {
    const common = gcd(from, to);
    this.up = to / common;
    this.down = from / common;
    const cutoff = Math.min(1, to / from) * ROLLOFF; // of the input's Nyquist frequency
    this.half = Math.ceil(ZEROS / cutoff); // input samples to each side
    this.filters = from === to ? null : design(this.up, this.half, cutoff);
    this.reset();
  }

  reset() {
    this.buffer = new Float32Array(this.half - 1); // what lies to the left of the first sample
    this.at = 0; // where in the buffer the next output's window begins
    this.phase = 0;
  }

  /** Every output whose window is complete; x: Float32Array at the input's rate. */
  push(x) {
    if (!this.filters) return Float32Array.from(x);
    const width = 2 * this.half;
    const buffer = new Float32Array(this.buffer.length + x.length);
    buffer.set(this.buffer);
    buffer.set(x, this.buffer.length);
    const out = [];
    while (this.at + width <= buffer.length) {
      const filter = this.filters[this.phase];
      let sum = 0;
      for (let k = 0; k < width; k++) sum += filter[k] * buffer[this.at + k];
      out.push(sum);
      this.phase += this.down;
      const whole = Math.floor(this.phase / this.up);
      this.at += whole;
      this.phase -= whole * this.up;
    }
    const drop = Math.min(this.at, buffer.length);
    this.buffer = buffer.slice(drop);
    this.at -= drop;
    return Float32Array.from(out);
  }

  /** What is still owed at the end of a sound; the converter is fresh afterwards. */
  flush() {
    const rest = this.filters ? this.push(new Float32Array(this.half)) : new Float32Array(0);
    this.reset();
    return rest;
  }
}

function design(phases, half, cutoff) {
  return Array.from({ length: phases }, (_, phase) => {
    const filter = Float64Array.from({ length: 2 * half }, (_, k) => {
      const t = k - (half - 1) - phase / phases; // input samples from the filter's centre
      const angle = (Math.PI * t) / half;
      const window = 0.42 + 0.5 * Math.cos(angle) + 0.08 * Math.cos(2 * angle); // Blackman
      return sinc(t * cutoff) * Math.max(0, window);
    });
    const total = filter.reduce((sum, tap) => sum + tap, 0);
    return Float32Array.from(filter, (tap) => tap / total);
  });
}

function sinc(t) {
  return t === 0 ? 1 : Math.sin(Math.PI * t) / (Math.PI * t);
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}
