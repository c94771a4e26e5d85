// The settings panel: what it shows, what is kept, and what it asks of the session.

const STORE = "omnivox.settings";
const NUMBERS = { threshold: "", silence: " ms", chunk: " units", lookahead: " frames" };

export const DEFAULTS = {
  turns: "server_vad", // or semantic_vad, or manual
  threshold: 0.5,
  silence: 500,
  eagerness: "auto",
  chunk: 10,
  whole: true, // lookahead: all that matters
  lookahead: 4,
  instructions: "",
};

export class Settings {
  /** form: the panel's <form>; onchange(values) is called after each change by hand. */
  constructor(form, onchange) {
    this.form = form;
    this.values = { ...DEFAULTS, ...stored() };
    this.#show();
    form.addEventListener("input", () => this.#mirror());
    form.addEventListener("change", () => {
      this.#read();
      onchange(this.values);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.values = { ...DEFAULTS };
      keep(this.values);
      this.#show();
      onchange(this.values);
    });
  }

  get manual() {
    return this.values.turns === "manual";
  }

  /** The `turn_detection` of the session: null for manual turns. */
  turnDetection() {
    const { turns, threshold, silence, eagerness } = this.values;
    const both = { create_response: true, interrupt_response: true };
    if (turns === "server_vad") return { type: turns, threshold, silence_duration_ms: silence, ...both };
    return turns === "semantic_vad" ? { type: turns, eagerness, ...both } : null;
  }

  /** Everything that `session.update` carries. */
  session() {
    const { chunk, whole, lookahead, instructions } = this.values;
    const format = { type: "audio/pcm", rate: 24000 };
    return {
      type: "realtime",
      output_modalities: ["audio"],
      instructions,
      audio: { input: { format, transcription: { model: "own" }, turn_detection: this.turnDetection() },
               output: { format } },
      omnivox: { chunk_units: chunk, lookahead: whole ? null : lookahead, timings: true },
    };
  }

  #read() {
    const data = new FormData(this.form);
    for (const name of ["turns", "eagerness", "instructions"]) this.values[name] = data.get(name) ?? this.values[name];
    for (const name of Object.keys(NUMBERS)) this.values[name] = Number(this.form.elements[name].value);
    this.values.whole = this.form.elements.whole.checked;
    keep(this.values);
    this.#mirror();
  }

  #show() {
    for (const [name, value] of Object.entries(this.values)) {
      const field = this.form.elements[name];
      if (field.type === "checkbox") field.checked = value;
      else field.value = value;
    }
    this.#mirror();
  }

  /** Numbers beside the sliders, and only the fields that matter for the kind of turns. */
  #mirror() {
    const fields = this.form.elements;
    for (const [name, unit] of Object.entries(NUMBERS)) {
      this.form.querySelector(`output[for="${name}"]`).value = fields[name].value + unit;
    }
    fields.lookahead.disabled = fields.whole.checked;
    for (const part of this.form.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== fields.turns.value;
  }
}

/** What was kept, as far as it still makes sense. */
function stored() {
  try {
    const kept = Object.entries(JSON.parse(localStorage.getItem(STORE)) ?? {});
    return Object.fromEntries(kept.filter(([name, value]) => typeof value === typeof DEFAULTS[name]));
  } catch {
    return {};
  }
}

function keep(values) {
  try {
    localStorage.setItem(STORE, JSON.stringify(values));
  } catch {
    // storage is full or forbidden: the settings then last as long as the page
  }
}
