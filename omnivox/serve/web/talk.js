// The button to talk, and the space bar: a click opens the microphone; holding is push-to-talk.
// Where turns are ended by hand, a short tap records until the next tap, for those who cannot hold.

const TAP = 300; // milliseconds; longer is holding
const CONTROLS = "input, textarea, select, button, summary, a";

export class Talk {
  #since = 0;
  #space = false;
  #latched = false;
  #pointed = false; // the click that follows was already dealt with

  /** input: what records; manual(): whether turns are ended by hand. */
  constructor(button, input, manual) {
    Object.assign(this, { button, input, manual });
    button.addEventListener("pointerdown", (event) => this.#down(event));
    button.addEventListener("pointerup", () => this.#up());
    button.addEventListener("pointercancel", () => this.#up());
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
    button.addEventListener("click", () => this.#click());
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("keyup", (event) => this.#keyUp(event));
    addEventListener("blur", () => this.#let());
  }

  get latched() {
    return this.#latched && this.input.holding;
  }

  #down(event) {
    if (!this.manual() || event.button) return;
    this.#pointed = true;
    this.button.setPointerCapture(event.pointerId);
    if (this.latched) return (this.#since = -Infinity); // the second tap
    this.#since = performance.now();
    this.input.begin();
  }

  #up() {
    if (!this.#pointed || !this.#since) return;
    if (performance.now() - this.#since < TAP) {
      this.#latched = true;
      this.input.on.change();
    } else {
      this.#end();
    }
    this.#since = 0;
  }

  #click() {
    const pointed = this.#pointed;
    this.#pointed = false;
    if (pointed) return;
    if (!this.manual()) this.input.listen(!this.input.listening);
    else if (this.input.holding) this.#end();
    else {
      this.#latched = true;
      this.input.begin();
    }
  }

  #end() {
    this.#latched = false;
    this.input.finish();
  }

  #key(event) {
    const elsewhere = event.target !== this.button && event.target.closest?.(CONTROLS);
    if (event.code !== "Space" || elsewhere || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault(); // no scrolling, and no click
    if (event.repeat || this.#space || this.latched) return;
    this.#space = true;
    this.#since = performance.now();
    this.input.begin();
  }

  #keyUp(event) {
    if (event.code !== "Space") return;
    if (event.target === this.button) event.preventDefault();
    if (!this.#space) return void (event.target === this.button && this.latched && this.#end());
    const tapped = performance.now() - this.#since < TAP;
    this.#space = false;
    this.#since = 0;
    if (!tapped) return this.#end();
    const click = event.target === this.button;
    this.input.abandon(click ? "" : "Hold the space bar while you speak, then release it.");
    if (click) this.#click();
  }

  /** The window lost the keyboard: no key-up will come. */
  #let() {
    if (!this.#space) return;
    this.#space = false;
    this.#end();
  }
}
