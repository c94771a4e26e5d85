// Everything that speaks to the server: the microphone, held or open, and the example questions.

import { Microphone, explain } from "./microphone.js";
import { FRAME, RATE, level, toPcm } from "./pcm.js";

const SHORTEST = 0.1 * RATE; // samples; less is a slip of the finger
const LEAD = 0.2 * RATE; // silence before an example
const TAIL = 10 * RATE; // the longest silence after it, for the server to notice its end
const RELEASE = 60000; // milliseconds after which a microphone that nobody uses is given back

export class Input {
  #gate = false; // frames go out although nothing listens: push-to-talk
  #held = 0; // samples since it was pressed
  #timer = 0;
  #talking = null; // AbortController of the example under way
  listening = false;
  holding = false;
  example = null; // its address

  /** on: {change(), level(value), notice(text)} */
  constructor(link, player, settings, conversation, on) {
    Object.assign(this, { link, player, settings, conversation, on });
    this.microphone = new Microphone((pcm) => this.#frame(pcm), () => this.#lost());
  }

  // Open microphone: the server notices when a turn ends.

  async listen(on) {
    if (on && !(await this.#start())) return;
    this.listening = on;
    if (!on) {
      this.microphone.stop();
      this.on.level(0);
      if (this.conversation.speaking) this.#example(new Int16Array(0)); // silence, so that the turn ends
    }
    this.on.change();
  }

  // Push-to-talk: what is said while it is held is one turn.

  async begin() {
    if (this.holding || !this.link.open) return;
    this.holding = true;
    this.on.notice("");
    this.on.change();
    this.#talking?.abort();
    if (!(await this.#start())) {
      this.holding = false;
      return this.on.change();
    }
    if (!this.holding) return; // released while the microphone was asked for
    this.conversation.stop();
    if (!this.settings.manual) this.#detect(null);
    this.link.send("input_audio_buffer.clear");
    this.#held = 0;
    this.#gate = true;
  }

  async finish() {
    if (!this.#gate) return this.abandon();
    await this.microphone.flush();
    if (this.#held < SHORTEST) return this.abandon("Hold while you speak, then release.");
    const asked = this.conversation.commit();
    this.#release(); // afterwards: to look for turns again empties the server's buffer
    await asked;
  }

  abandon(hint = "") {
    if (this.#gate) this.link.send("input_audio_buffer.clear");
    this.#release();
    if (hint) this.on.notice(hint);
  }

  #release() {
    if (this.#gate && !this.settings.manual) this.#detect(this.settings.turnDetection());
    this.#gate = this.holding = false;
    if (!this.listening) this.#timer = setTimeout(() => this.microphone.stop(), RELEASE);
    this.on.change();
  }

  // Examples.

  /** Plays a question as if somebody spoke it; a second click on the same one stops it. */
  async play(url, words) {
    const same = this.example === url;
    this.#talking?.abort();
    if (same) return;
    this.on.notice("");
    try {
      await this.player.start();
      const answer = await fetch(url);
      if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
      const offline = new OfflineAudioContext(1, 1, RATE); // it decodes to the wire's rate
      const buffer = await offline.decodeAudioData(await answer.arrayBuffer());
      if (this.settings.manual) await this.conversation.stop();
      this.conversation.expect(words);
      await this.#example(toPcm(buffer.getChannelData(0)), url, this.player.sample(buffer));
    } catch (error) {
      this.on.notice(`This example cannot be played (${error.message}).`);
    }
  }

  async #example(pcm, url = null, quiet = () => {}) {
    this.#talking?.abort();
    const control = (this.#talking = new AbortController());
    control.signal.addEventListener("abort", () => this.link.send("input_audio_buffer.clear"));
    this.example = url;
    this.on.change();
    const { turns } = this.conversation;
    const heard = () => this.settings.manual || (this.conversation.turns > turns && !this.conversation.speaking);
    if (this.settings.manual) this.link.send("input_audio_buffer.clear");
    const sent = await this.#stream(pcm, heard, control.signal);
    quiet();
    if (sent && this.settings.manual && pcm.length) this.conversation.commit();
    if (this.#talking !== control) return;
    this.#talking = this.example = null;
    this.on.level(0);
    this.on.change();
  }

  /** At the pace of speech, then silence until `heard()`; false where it was aborted. */
  async #stream(pcm, heard, signal) {
    const sound = new Int16Array(LEAD + pcm.length);
    sound.set(pcm, LEAD);
    const begin = performance.now();
    for (let at = 0; at < sound.length + TAIL; at += FRAME) {
      if (at >= sound.length && heard()) break;
      const frame = new Int16Array(FRAME);
      frame.set(sound.subarray(at, at + FRAME));
      this.link.append(frame);
      this.on.level(level(frame));
      const wait = begin + (1000 * (at + FRAME)) / RATE - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      if (signal.aborted || !this.link.open) return false;
    }
    return true;
  }

  // The microphone.

  async #start() {
    clearTimeout(this.#timer);
    try {
      await this.player.start();
      await this.microphone.start(this.player.context);
      return true;
    } catch (error) {
      this.on.notice(explain(error));
      return false;
    }
  }

  #frame(pcm) {
    const wanted = this.#gate || (this.listening && !this.#talking);
    if (!wanted) return;
    this.on.level(level(pcm));
    if (this.#gate) this.#held += pcm.length;
    this.link.append(pcm);
  }

  #lost() {
    this.listening = this.holding = this.#gate = false;
    this.on.level(0);
    this.on.notice("The microphone was unplugged or taken away.");
    this.on.change();
  }

  #detect(turn_detection) {
    this.link.send("session.update", { session: { type: "realtime", audio: { input: { turn_detection } } } });
  }

  /** The connection is gone, and with it whatever was being said. */
  lose() {
    this.#talking?.abort();
    this.#gate = this.holding = false;
    this.on.change();
  }
}
