// The example questions: a row of buttons.

export class Examples {
  /** list: the <ul>; onplay(url, words). */
  constructor(list, onplay) {
    this.list = list;
    this.onplay = onplay;
  }

  /** address: of examples.json. Without examples the row is not there. */
  async load(address) {
    let examples = [];
    try {
      const answer = await fetch(address);
      if (answer.ok) examples = await answer.json();
    } catch {
      // the server is away; the page says so elsewhere
    }
    this.list.replaceChildren(...examples.map((example) => this.#row(example, address)));
    this.list.parentElement.hidden = !examples.length;
    return examples.length > 0;
  }

  /** Marks the one that is playing. */
  show(url) {
    for (const button of this.list.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.url === url));
    }
  }

  #row({ text, url }, address) {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.textContent = text.charAt(0).toUpperCase() + text.slice(1);
    button.dataset.url = new URL(url, address).href;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.onplay(button.dataset.url, button.textContent));
    row.append(button);
    return row;
  }
}
