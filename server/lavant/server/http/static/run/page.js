// One run: its text as it streams, its steps and tool calls over time.

import { EVENTS, RunModel } from "./model.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";
import { follow, get } from "../shared/api.js";
import { badge, field, figure, h, labels, notes, perFrame, progressBar, replace } from "../shared/elements.js";
import { age, compact, cost, count, pretty, span, tokens } from "../shared/format.js";
import { judgements } from "../shared/recorded_scores.js";

export function runPage(main, id, setState) {
  const model = new RunModel();
  const transcript = new Transcript(model);
  const timeline = new Timeline(model);
  const scores = new RunScores(id);
  const head = h("section", { class: "head" });
  const input = h("div");
  const output = h("div");
  replace(main, head, scores.element, h("div", { class: "columns" }, h("div", {}, input, transcript.element, output), timeline.element));

  const draw = perFrame(() => {
    drawHead(head, model, id);
    replace(input, field("Input", pretty(model.started?.input_json)));
    replace(output, field("Output", pretty(model.result?.output_json)));
    timeline.draw();
    transcript.draw();
  });
  const ticking = setInterval(() => model.ended || draw(), 1000);
  const stop = follow(
    `/api/v1/runs/${encodeURIComponent(id)}/stream`,
    { deltas: "merged" },
    ["opened", ...EVENTS],
    {
      state: setState,
      event(name, data) {
        if (name === "opened") model.open(data.run);
        else touch(model.apply(name, data));
        draw();
      },
    },
  );

  function touch(changed) {
    if (changed?.kind === "step") {
      timeline.touch(changed);
      for (const one of model.moved.splice(0)) timeline.move(one);
      for (const one of [...model.steps, ...model.leaves]) if (one.superseded) timeline.touch(one);
      if (changed.attempt > 1) for (const entry of model.entries) if (entry.superseded) transcript.touch(entry);
    } else if (changed) {
      transcript.touch(changed);
      if (changed.kind === "call" && changed.depth !== undefined) timeline.touch(changed);
    }
  }

  draw();
  return () => {
    scores.close();
    clearInterval(ticking);
    stop();
  };
}

function drawHead(head, model, id) {
  const { run, progress, usage, began, last, ended } = model;
  const took = began === undefined ? undefined : ((ended ? last : Date.now()) - began) / 1000;
  document.title = `${run?.name ?? id} · lavant`;
  replace(
    head,
    h("h1", {}, run?.name ?? id, " ", badge(model.state)),
    h("p", {}, notes(id, model.started?.model, run && `${age(run.create_time)} ago`), labels(run?.labels)),
    h(
      "dl",
      { class: "figures" },
      figure("Duration", span(took)),
      figure("Events", count(model.events)),
      figure("Steps", count(model.steps.length)),
      figure("Tokens", tokens(usage) ? compact(tokens(usage)) : ""),
      figure("Cost", cost(usage)),
    ),
    progress && !ended ? progressBar(progress) : null,
  );
}

const SHOWN = 200;
const REFRESH = 10_000;

// Scores of one run by rules and people, which may arrive long after its end.
class RunScores {
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
      if (this.asking.signal.aborted || this.shown) return; // What is shown stays, until there is something new.
      this.element.hidden = false;
      replace(this.element, h("h2", {}, "Scores"), h("p", { class: "fault" }, error.message));
    }
  }

  #draw(scores, more) {
    const text = JSON.stringify(scores);
    if (text === this.shown) return;
    this.shown = text;
    this.element.hidden = !scores.length;
    const rest = more ? h("p", { class: "nothing" }, `The latest ${SHOWN}.`) : null;
    replace(this.element, h("h2", {}, "Scores"), h("div", { class: "scroll" }, judgements(scores, false)), rest);
  }
}
