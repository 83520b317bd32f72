// One evaluation: how far it is, its scores, its rows to sort and to look into, and a baseline beside it.

import { compare, EvaluationModel, mean, toRow } from "./model.js";
import { EVENTS } from "../run/model.js";
import { follow, get, pages } from "../shared/api.js";
import { badge, fault, field, figure, h, header, labels, notes, perFrame, progressBar, replace } from "../shared/elements.js";
import { age, count, pretty, score as shown, span } from "../shared/format.js";

const SHOWN = 500;

export function evaluationPage(main, id, setState) {
  const model = new EvaluationModel();
  const view = { sort: "row", descending: false, limit: SHOWN, selected: undefined, baseline: undefined, only: undefined };
  const stopped = new AbortController();
  const head = h("section", { class: "head" });
  const scores = h("section", { class: "scores", "aria-label": "Scores" });
  const choice = h("select", { "aria-label": "Baseline", onchange: () => choose(choice.value) }, h("option", { value: "" }, "Compare with …"));
  const comparison = h("section", { class: "comparison", "aria-label": "Comparison" });
  const table = h("section", { class: "scroll", "aria-label": "Rows" });
  const details = h("section", { class: "details", "aria-live": "polite" });
  replace(main, head, scores, h("p", {}, choice), comparison, h("div", { class: "columns" }, table, details));

  const draw = perFrame(() => {
    drawHead(head, model, id);
    drawScores(scores, model);
    drawComparison(comparison, model, view, draw);
    drawRows(table, model, view, draw);
    drawDetails(details, view);
  });
  const ticking = setInterval(() => model.ended || draw(), 1000);
  const stop = follow(`/api/v1/runs/${encodeURIComponent(id)}/stream`, { deltas: "none" }, ["opened", ...EVENTS], {
    state: setState,
    event(name, data) {
      if (name === "opened") opened(data.run);
      else model.apply(name, data);
      draw();
    },
  });

  let offered = false;
  async function opened(run) {
    model.open(run);
    if (!run || offered) return;
    offered = true;
    const { runs = [] } = await get("/api/v1/runs", { kind: "evaluation", name: run.name, page_size: 50 }).catch(() => ({}));
    for (const other of runs) {
      if (other.run_id !== id) choice.append(h("option", { value: other.run_id }, `${age(other.create_time)} ago · ${other.run_id}`));
    }
  }

  async function choose(other) {
    view.baseline = undefined;
    view.only = undefined;
    draw();
    if (!other) return;
    const rows = [];
    try {
      for await (const page of pages(`/api/v1/runs/${encodeURIComponent(other)}/events`, "events", { type: "row_finished" }, stopped.signal)) {
        rows.push(...page.map((event) => toRow(event.row_finished)));
        if (!page.length) break;
      }
    } catch (error) {
      return setState(error.message);
    }
    if (choice.value === other) view.baseline = rows;
    return draw();
  }

  draw();
  return () => {
    stopped.abort();
    clearInterval(ticking);
    stop();
  };
}

function drawHead(head, model, id) {
  const { run, plan, rows, total, began, last, ended } = model;
  const took = began === undefined ? undefined : ((ended ? last : Date.now()) - began) / 1000;
  document.title = `${run?.name ?? id} · lavant`;
  replace(
    head,
    h("h1", {}, run?.name ?? id, " ", badge(model.state)),
    h("p", {}, notes(id, plan.dataset && `dataset ${plan.dataset}`, run && `${age(run.create_time)} ago`), labels(run?.labels)),
    fault(model.result?.error),
    h(
      "dl",
      { class: "figures" },
      figure("Rows", total ? `${count(rows.length)} of ${count(total)}` : count(rows.length)),
      figure("Failed rows", count(model.failed)),
      figure("Iterations", plan.iterations ? count(plan.iterations) : ""),
      figure("Duration", span(took)),
    ),
    ended ? null : progressBar({ completed: rows.length, total: total || undefined, label: model.progress?.label }),
  );
}

function drawScores(element, model) {
  const cells = [...model.scores.values()].map((score) => {
    const value = mean(score);
    const isShare = value !== undefined && value >= 0 && value <= 1;
    const classes = [...score.classes].map(([name, times]) => `${name}: ${count(times)}`);
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, score.name, notes(score.version && `v${score.version}`)),
      h("td", { class: "number" }, shown(value)),
      h("td", {}, isShare ? h("meter", { min: 0, max: 1, value, "aria-label": `mean of ${score.name}` }) : null, notes(...classes)),
      h("td", { class: "number" }, score.verdicts ? `${count(score.passed)} of ${count(score.verdicts)} passed` : ""),
      h("td", { class: "number" }, score.errors ? `${count(score.errors)} errors` : ""),
    );
  });
  replace(element, cells.length ? h("table", {}, header("Score", "#Mean", "", "#Passed", "#Errors"), h("tbody", {}, cells)) : null);
}

function drawComparison(element, model, view, draw) {
  if (!view.baseline) return replace(element);
  const found = compare(model.rows, view.baseline);
  const pick = (rows, text) =>
    rows.length ? h("button", { type: "button", class: "link", onclick: () => only(new Set(rows.map((row) => row.key))) }, `${count(rows.length)} ${text}`) : null;
  const only = (keys) => {
    view.only = keys;
    draw();
  };
  const cells = found.map((one) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, one.name),
      h("td", { "data-verdict": one.verdict }, one.verdict),
      h("td", { class: "number" }, one.delta === undefined ? "" : `${one.delta > 0 ? "+" : ""}${shown(one.delta)}`),
      h("td", {}, pick(one.better, "better"), " ", pick(one.worse, "worse"), " ", pick(one.changed ?? [], "changed")),
    ),
  );
  return replace(
    element,
    found.length
      ? h("table", {}, header("Score", "Against the baseline", "#Mean", "Rows that flipped"), h("tbody", {}, cells))
      : h("p", { class: "nothing" }, "No row of the baseline has the same id and iteration."),
    view.only ? h("button", { type: "button", onclick: () => only(undefined) }, "Show all rows") : null,
  );
}

function drawRows(element, model, view, draw) {
  const names = [...model.scores.keys()];
  const columns = ["row", "iteration", ...names, "duration"];
  const rows = model.rows.filter((row) => !view.only || view.only.has(row.key));
  const key = (row) => valueOf(row, view.sort);
  rows.sort((a, b) => order(key(a), key(b)) * (view.descending ? -1 : 1) || order(a.id, b.id) || a.iteration - b.iteration);
  const heads = columns.map((name) =>
    h(
      "th",
      { scope: "col", class: name !== "row" && "number", "aria-sort": view.sort === name ? (view.descending ? "descending" : "ascending") : undefined },
      h("button", { type: "button", class: "link", "data-key": `sort ${name}`, onclick: () => sortBy(view, name, draw) }, name),
    ),
  );
  const lines = rows.slice(0, view.limit).map((row) =>
    h(
      "tr",
      { "aria-selected": view.selected?.key === row.key ? "true" : undefined, "data-failed": row.failed },
      h("th", { scope: "row" }, h("button", { type: "button", class: "link", "data-key": row.key, onclick: () => select(view, row, draw) }, row.id)),
      h("td", { class: "number" }, String(row.iteration)),
      names.map((name) => scoreCell(row.scores.get(name))),
      h("td", { class: "number" }, row.error ? h("span", { class: "fault" }, row.error.type || "failed") : span(row.took)),
    ),
  );
  const focused = document.activeElement?.closest("section") === element ? document.activeElement.dataset.key : undefined;
  replace(
    element,
    h("table", { class: "rows" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, lines)),
    rows.length > view.limit ? h("button", { type: "button", class: "more", onclick: () => ((view.limit += SHOWN), draw()) }, `Show more of ${count(rows.length - view.limit)} rows`) : null,
  );
  if (focused) [...element.querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
}

function scoreCell(score) {
  if (!score) return h("td");
  if (score.error) return h("td", { class: "number" }, h("span", { class: "fault", title: score.error.message }, "error"));
  return h("td", { class: "number", "data-passed": typeof score.value === "boolean" ? String(score.value) : undefined }, shown(score.value));
}

function drawDetails(element, { selected: row }) {
  if (!row) return replace(element);
  const said = [...row.scores.values()].map((score) =>
    h("div", { class: "field" }, h("h4", {}, score.name, " ", score.error ? "error" : shown(score.value)), score.why ? h("p", {}, score.why) : null, fault(score.error)),
  );
  const metrics = Object.entries(row.metrics).map(([name, value]) => `${name} ${shown(value)}`);
  return replace(
    element,
    h("h3", {}, row.id, notes(`iteration ${row.iteration}`, span(row.took))),
    fault(row.error),
    field("Input", pretty(row.input)),
    field("Output", pretty(row.output)),
    field("Expected", pretty(row.expected)),
    said,
    h("p", {}, notes(...metrics)),
    row.run ? h("a", { href: `#/runs/${encodeURIComponent(row.run)}` }, "The run") : null,
  );
}

function valueOf(row, column) {
  if (column === "row") return row.id;
  if (column === "iteration") return row.iteration;
  if (column === "duration") return row.took;
  const score = row.scores.get(column);
  return score?.error ? undefined : score?.value;
}

function order(a, b) {
  if (a === undefined || b === undefined) return a === b ? 0 : a === undefined ? 1 : -1;
  if (typeof a === "string" || typeof b === "string") return String(a).localeCompare(String(b), "en", { numeric: true });
  return Number(a) - Number(b);
}

function sortBy(view, name, draw) {
  view.descending = view.sort === name && !view.descending;
  view.sort = name;
  draw();
}

function select(view, row, draw) {
  view.selected = view.selected?.key === row.key ? undefined : row;
  draw();
}
