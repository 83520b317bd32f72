// One run: its text as it streams, its steps and tool calls over time.

import { follow } from "./api.js";
import { h, perFrame, replace } from "./dom.js";
import { age, compact, cost, count, pretty, span, tokens } from "./format.js";
import { badge, field, figure, labels, notes } from "./parts.js";
import { EVENTS, RunModel } from "./run_model.js";
import { RunScores } from "./run_scores.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";

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

export function progressBar({ label, completed, total }) {
  const known = total !== undefined && Number(total) > 0;
  const text = known ? `${count(completed)} of ${count(total)}` : completed === undefined ? "" : count(completed);
  return h(
    "div",
    { class: "progress" },
    h("progress", known ? { max: Number(total), value: Math.min(Number(completed ?? 0), Number(total)) } : {}),
    notes(text, label),
  );
}
