// The conversation as it is read: one entry a turn, the newest below.

import { timeline } from "./timeline.js";

export class Transcript {
  /** list: the <ol>; welcome: what is shown while it is empty; announcer: a live region for screen readers. */
  constructor(list, welcome, announcer) {
    this.list = list;
    this.welcome = welcome;
    this.announcer = announcer;
  }

  asked(text) {
    return this.#add(new Entry("asked", "You", text));
  }

  answer() {
    return this.#add(new Entry("answer", "omnivox", ""));
  }

  /** A line across, such as where a new conversation begins. */
  divide(text) {
    if (!this.list.childElementCount || this.list.lastElementChild.className === "divide") return;
    const line = document.createElement("li");
    line.className = "divide";
    line.textContent = text;
    this.list.append(line);
    this.follow();
  }

  clear() {
    this.list.replaceChildren();
    this.welcome.hidden = false;
  }

  /** Read out by screen readers, once whole. */
  announce(text) {
    this.announcer.textContent = text;
  }

  follow() {
    const box = this.list.parentElement;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    box.scrollTo({ top: box.scrollHeight, behavior: calm ? "instant" : "smooth" });
  }

  #add(entry) {
    entry.changed = () => this.follow();
    this.welcome.hidden = true;
    this.list.append(entry.node);
    this.follow();
    return entry;
  }
}

class Entry {
  changed = () => {};

  constructor(kind, who, text) {
    this.node = document.createElement("li");
    this.node.className = kind;
    const name = document.createElement("span");
    name.className = "who";
    name.textContent = who;
    this.words = document.createElement("p");
    this.words.className = "words";
    this.words.textContent = text;
    this.node.append(name, this.words);
  }

  get text() {
    return this.words.textContent;
  }

  set text(text) {
    this.words.textContent = text;
    this.changed();
  }

  get state() {
    return this.node.dataset.state;
  }

  /** One of: waiting, sounding, done, interrupted, failed. */
  set state(state) {
    this.node.dataset.state = state;
  }

  /** A small remark below the words. */
  remark(text) {
    const remark = document.createElement("p");
    remark.className = "remark";
    remark.textContent = text;
    this.words.after(remark);
    this.changed();
  }

  times(times) {
    const figure = timeline(times);
    if (figure) this.node.append(figure);
    this.changed();
  }

  remove() {
    this.node.remove();
  }
}
