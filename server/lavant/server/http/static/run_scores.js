// What was said of one run, by rules and by people. They may say it long after its end.

import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { judgements } from "./judged_runs.js";

const SHOWN = 200;
const REFRESH = 10_000;

export class RunScores {
  constructor(id) {
    this.path = `/api/v1/runs/${encodeURIComponent(id)}/scores`;
    this.element = h("section", { class: "run-scores", "aria-label": "Scores", hidden: true });
    this.asking = new AbortController();
    this.ticking = setInterval(() => document.hidden || this.#load(), REFRESH);
    this.#load();
  }

  close() {
    clearInterval(this.ticking);
    this.asking.abort();
  }

  async #load() {
    try {
      const { scores = [], next_page_token: more } = await get(this.path, { page_size: SHOWN }, this.asking.signal);
      this.#draw(scores, more);
    } catch (error) {
      if (this.asking.signal.aborted || this.told) return; // What is shown stays, until there is something new.
      this.element.hidden = false;
      replace(this.element, h("h2", {}, "Scores"), h("p", { class: "fault" }, error.message));
    }
  }

  #draw(scores, more) {
    const told = JSON.stringify(scores);
    if (told === this.told) return;
    this.told = told;
    this.element.hidden = !scores.length;
    const rest = more ? h("p", { class: "nothing" }, `The latest ${SHOWN}.`) : null;
    replace(this.element, h("h2", {}, "Scores"), h("div", { class: "scroll" }, judgements(scores, false)), rest);
  }
}
