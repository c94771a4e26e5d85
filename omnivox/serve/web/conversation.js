// What the server's events mean: turns, answers that are heard and read in step, and interruptions.
//
// The words of an answer come ahead of its sound. Each is kept with the length of sound that had come before it, and
// shown when playback gets beyond that point. Where an answer is cut short, the server is told how much was heard, and
// what it then keeps is what is shown: the page and the model's memory agree.

import { fromBase64 } from "./pcm.js";

const PATIENCE = 2000; // milliseconds to wait for a cancelled answer's last event

export class Conversation {
  #answers = new Map(); // by item id
  #responses = new Map(); // by response id
  #asked = new Map(); // entries of spoken turns, by item id
  #active = null; // the response being made
  #done = null; // called when it is
  #words = ""; // what the next spoken turn says, where that is known
  #turn = null; // {at, voice}: when the latest question ended, or when the server noticed
  turns = 0; // spoken turns that have ended
  speaking = false;

  /** on: {phase(), notice(text)} */
  constructor(link, player, transcript, on) {
    Object.assign(this, { link, player, transcript, on });
  }

  /** hearing, answering, thinking or idle. */
  get phase() {
    if (this.speaking) return "hearing";
    if (this.#audible().length) return "answering";
    return this.#active ? "thinking" : "idle";
  }

  // What the page does.

  /** A written question. */
  async write(text) {
    await this.stop();
    this.transcript.asked(text);
    const content = [{ type: "input_text", text }];
    this.link.send("conversation.item.create", { item: { type: "message", role: "user", content } });
    await this.#ask();
  }

  /** Ends a spoken turn by hand. */
  async commit() {
    this.link.send("input_audio_buffer.commit");
    await this.#ask();
  }

  /** What the next spoken turn says, for a sound whose words are known. */
  expect(words) {
    this.#words = words;
  }

  /** Stops the answer, whether it is still being made or only still sounding. */
  async stop() {
    if (this.#active) this.link.send("response.cancel");
    await this.#silence();
  }

  /** Forgets the session, which is gone; what was shown stays. */
  lose() {
    this.player.stop();
    for (const answer of this.#answers.values()) if (!answer.over) answer.entry.state = "interrupted";
    for (const response of this.#responses.values()) if (!response.done) response.entry.state = "interrupted";
    this.#answers.clear();
    this.#responses.clear();
    this.#asked.clear();
    this.#finish();
    this.#words = "";
    this.speaking = false;
    this.on.phase();
  }

  async #ask() {
    const turn = { at: performance.now(), voice: false };
    if (this.#active) {
      await Promise.race([new Promise((resolve) => (this.#done = resolve)),
                          new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
    }
    this.#turn = turn;
    this.link.send("response.create");
  }

  // What the server says.

  handle(event) {
    this.#handlers[event.type]?.(event);
    this.on.phase();
  }

  #handlers = {
    "input_audio_buffer.speech_started": ({ item_id, audio_start_ms }) => {
      this.#silence();
      this.speaking = true;
      const entry = this.#asked.get(item_id) ?? this.transcript.asked("…");
      entry.began = audio_start_ms;
      entry.state = "sounding";
      this.#asked.set(item_id, entry);
      this.#name(entry, "…");
    },
    "input_audio_buffer.speech_stopped": ({ item_id, audio_end_ms }) => {
      this.#turn = { at: performance.now(), voice: true };
      this.speaking = false;
      this.turns += 1;
      const entry = this.#asked.get(item_id);
      if (!entry) return;
      entry.state = "done";
      if (entry.text === "…") entry.text = `Spoken question, ${((audio_end_ms - entry.began) / 1000).toFixed(1)} s`;
    },
    "input_audio_buffer.committed": ({ item_id }) => {
      if (this.#asked.has(item_id)) return;
      const entry = this.transcript.asked("");
      this.#asked.set(item_id, entry);
      this.#name(entry, "Spoken question");
    },
    "input_audio_buffer.cleared": () => {
      this.speaking = false;
      for (const [id, entry] of this.#asked) {
        if (entry.state !== "sounding") continue;
        this.#asked.delete(id);
        entry.remove();
      }
    },
    "conversation.item.input_audio_transcription.completed": ({ item_id, transcript }) => {
      const entry = this.#asked.get(item_id);
      if (entry && !entry.known && transcript.trim()) entry.text = transcript;
    },
    "response.created": ({ response }) => {
      this.#active = response.id;
      const entry = this.transcript.answer();
      entry.state = "waiting";
      this.#responses.set(response.id, { entry, turn: this.#turn, sound: false, heard: null, done: null });
    },
    "response.output_item.added": ({ response_id, item }) => {
      const response = this.#responses.get(response_id);
      if (!response || item.type !== "message") return;
      this.#answers.set(item.id, new Answer(response, response.entry));
    },
    "response.output_audio.delta": ({ item_id, delta }) => {
      const answer = this.#answers.get(item_id);
      if (!answer || answer.over) return;
      const pcm = fromBase64(delta);
      if (!this.player.play(item_id, pcm)) return; // no sound here: the words are shown at the end
      answer.received += pcm.length;
      answer.response.sound = true;
    },
    "response.output_audio.done": ({ item_id }) => this.player.end(item_id),
    "response.output_audio_transcript.delta": ({ item_id, delta }) => this.#answers.get(item_id)?.say(delta),
    "response.output_text.delta": ({ item_id, delta }) => this.#answers.get(item_id)?.write(delta),
    "conversation.item.done": ({ item }) => this.#answers.get(item.id)?.settle(item),
    "conversation.item.truncated": ({ item_id }) => {
      // How far the model itself got is known to the server alone; while the answer is made, it tells by itself.
      const ready = this.#answers.get(item_id)?.response.done;
      if (ready) this.link.send("conversation.item.retrieve", { item_id });
    },
    "conversation.item.retrieved": ({ item }) => this.#answers.get(item.id)?.settle(item),
    "response.done": ({ response }) => this.#conclude(response),
  };

  #name(entry, otherwise) {
    entry.known = Boolean(this.#words);
    entry.text = this.#words || entry.text || otherwise;
    this.#words = "";
  }

  #conclude(told) {
    if (this.#active === told.id) this.#finish();
    const response = this.#responses.get(told.id);
    if (!response) return;
    response.done = told;
    for (const [id, answer] of this.#answers) {
      if (answer.response !== response || answer.over) continue;
      if (answer.received) this.player.end(id);
      else this.#end(answer);
    }
    const { entry } = response;
    if (told.status === "failed") {
      entry.state = "failed";
      entry.remark(told.status_details?.error?.message ?? "The answer failed.");
    } else if (told.status === "incomplete") {
      entry.remark("The answer reached the longest length allowed.");
    } else if (!response.sound && !entry.text) {
      entry.remove(); // cancelled before there was anything
    }
    this.#time(response);
  }

  #finish() {
    this.#active = null;
    this.#done?.();
    this.#done = null;
  }

  // What the loudspeaker says.

  started(item, when) {
    const answer = this.#answers.get(item);
    if (!answer) return;
    answer.entry.state = "sounding";
    answer.response.heard ??= when;
    this.#time(answer.response);
    this.on.phase();
  }

  progress(item, played) {
    const answer = this.#answers.get(item);
    if (!answer || answer.over) return;
    answer.played = played;
    answer.reveal(played - this.player.delay);
  }

  /** The words shown of an item. */
  words(item) {
    return this.#answers.get(item)?.entry.text;
  }

  ended(item) {
    const answer = this.#answers.get(item);
    if (answer && !answer.over) this.#end(answer);
    this.on.phase();
  }

  #end(answer) {
    answer.over = true;
    answer.reveal(Infinity);
    answer.entry.state = "done";
    if (answer.entry.text) this.transcript.announce(answer.entry.text);
  }

  #audible() {
    return [...this.#answers].filter(([, answer]) => answer.received && !answer.over);
  }

  /** Stops playback now, tells the server what was heard, and shows no more than that. */
  async #silence() {
    const cut = this.#audible();
    if (!cut.length) return;
    for (const [, answer] of cut) answer.over = answer.cut = true; // what still comes of them is dropped
    const stopped = await this.player.stop();
    for (const [id, answer] of cut) {
      const played = stopped.find(({ item }) => item === id)?.played ?? answer.played;
      answer.reveal(played);
      answer.entry.state = "interrupted";
      answer.entry.remark("Interrupted");
      const audio_end_ms = Math.floor(played / 24);
      this.link.send("conversation.item.truncate", { item_id: id, content_index: 0, audio_end_ms });
    }
    this.on.phase();
  }

  /** Draws where the time went, once both the server and the loudspeaker have told their part. */
  #time(response) {
    const { entry, turn, sound, heard, done } = response;
    if (response.timed || !done || !turn || (sound && heard === null)) return;
    response.timed = true;
    const told = done.omnivox ?? {};
    const pause = turn.voice ? (told.pause_ms ?? null) : null;
    entry.times({ pause, encode: told.encode_ms || null, token: told.first_token_ms, sound: told.first_audio_ms,
                  heard: heard === null ? null : heard - turn.at + (pause ?? 0) });
  }
}

/** One item of an answer: how much of it came, was played and is shown. Lengths in samples at 24 kHz. */
class Answer {
  received = 0;
  played = 0;
  over = false;
  cut = false;
  #waiting = []; // [text, length of sound that had come before it]

  constructor(response, entry) {
    this.response = response;
    this.entry = entry;
  }

  say(text) {
    if (this.cut) return;
    this.#waiting.push([text, this.received]);
    if (this.over) this.reveal(Infinity);
  }

  write(text) {
    this.entry.state = "sounding";
    this.entry.text += text;
  }

  /** Where it was cut: exactly the words that the model remembers to have said. */
  settle(item) {
    const { transcript } = item.content?.[0] ?? {};
    if (!this.cut || typeof transcript !== "string") return;
    this.#waiting = [];
    this.entry.text = transcript;
  }

  /** Shows the words that came before the first `played` samples were complete. */
  reveal(played) {
    let text = "";
    while (this.#waiting.length && this.#waiting[0][1] < played) text += this.#waiting.shift()[0];
    if (text) this.entry.text += text;
  }
}
