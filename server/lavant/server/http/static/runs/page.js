// The newest runs, live: a page of them is fetched, then every change of theirs and every new run is followed.

import { follow, get } from "../shared/api.js";
import { badge, h, labels, perFrame, replace } from "../shared/elements.js";
import { age, compact, cost, count, hasEnded, milliseconds, span, stateName, tokens } from "../shared/format.js";

const PAGE = 100;
const REFRESH = 5000;
const STATES = ["queued", "running", "input_required", "succeeded", "failed", "cancelled", "timed_out", "abandoned"];
const COLUMNS = ["State", "Name", "Labels", "Age", "Duration", "Events", "Tokens", "Cost"];
const TEXTS = 3; // Columns behind these hold numbers.

export function runsPage(main, kind, setState) {
  const runs = new Map();
  const rows = new Map();
  let nextPage = "";
  let stop = () => {};
  let round = 0;

  const name = h("input", { type: "search", placeholder: "Name", "aria-label": "Name", onchange: () => restart() });
  const label = h("input", { type: "search", placeholder: "label=value", "aria-label": "Label", onchange: () => restart() });
  const state = h(
    "select",
    { "aria-label": "State", onchange: () => restart() },
    h("option", { value: "" }, "Any state"),
    STATES.map((one) => h("option", { value: one }, one.replaceAll("_", " "))),
  );
  const body = h("tbody");
  const more = h("button", { type: "button", class: "more", onclick: () => loadMore() }, "Show older");
  const nothing = h("p", { class: "nothing" });
  const caption = kind === "evaluation" ? "Evaluations" : "Runs";
  document.title = `${caption} · lavant`;
  replace(
    main,
    h("form", { class: "filters", onsubmit: (event) => event.preventDefault() }, h("h1", {}, caption), name, label, state),
    h("div", { class: "scroll" }, h("table", { class: "runs" }, h("thead", {}, h("tr", {}, COLUMNS.map((one, index) => h("th", { scope: "col", class: index >= TEXTS && "number" }, one)))), body)),
    nothing,
    more,
  );

  // The results of rules are evaluations too, in runs that the server writes.
  const include_system_runs = kind === "evaluation" ? "true" : "";
  const filter = () => ({ kind, name: name.value.trim(), label: label.value.trim(), state: state.value, include_system_runs });

  const draw = perFrame(() => {
    const sorted = [...runs.values()].sort((a, b) => milliseconds(b.create_time) - milliseconds(a.create_time) || (a.run_id < b.run_id ? 1 : -1));
    for (const [id, row] of rows) {
      if (!runs.has(id)) {
        row.remove();
        rows.delete(id);
      }
    }
    let previous = null;
    for (const run of sorted) {
      const row = rows.get(run.run_id) ?? h("tr");
      rows.set(run.run_id, row);
      fill(row, run);
      const place = previous ? previous.nextSibling : body.firstChild;
      if (row !== place) body.insertBefore(row, place);
      previous = row;
    }
    more.hidden = !nextPage;
    nothing.textContent = runs.size ? "" : "No runs yet that match.";
  });

  async function restart() {
    stop();
    round += 1;
    const mine = round;
    runs.clear();
    nextPage = "";
    try {
      const page = await get("/api/v1/runs", { ...filter(), page_size: PAGE });
      if (mine !== round) return;
      take(page);
      const oldest = page.runs?.at(-1)?.create_time ?? new Date(0).toISOString();
      const since = new Date(milliseconds(oldest) - 1).toISOString();
      const followed = { ...filter(), created_after: nextPage ? since : "" };
      stop = follow("/api/v1/watch", followed, ["run", "left", "deleted"], { state: setState, event: change }, "");
    } catch (error) {
      if (mine === round) setState(error.message);
      nothing.textContent = error.message;
    }
  }

  function take(page) {
    for (const run of page.runs ?? []) runs.set(run.run_id, run);
    nextPage = page.next_page_token ?? "";
    draw();
  }

  function change(type, run) {
    if (type === "run") runs.set(run.run_id, run);
    else runs.delete(run.run_id);
    draw();
  }

  async function loadMore() {
    const mine = round;
    const page = await get("/api/v1/runs", { ...filter(), page_size: PAGE, page_token: nextPage });
    if (mine === round) take(page);
  }

  // The number of events is no change of state: no frame reports it.
  async function refresh() {
    draw();
    const atWork = [...runs.values()].filter((run) => !hasEnded(run.state));
    if (document.hidden || !atWork.length) return;
    const mine = round;
    const page = await get("/api/v1/runs", { ...filter(), state: ["queued", "running", "input_required"], page_size: PAGE }).catch(() => ({}));
    if (mine !== round) return;
    for (const run of page.runs ?? []) if (runs.has(run.run_id)) change("run", run);
  }

  const ticking = setInterval(refresh, REFRESH);
  restart();
  return () => {
    round += 1;
    clearInterval(ticking);
    stop();
  };
}

function fill(row, run) {
  const ended = hasEnded(run.state);
  const took = (ended ? milliseconds(run.end_time) : Date.now()) - milliseconds(run.create_time);
  const usage = run.result?.usage;
  const page = run.kind === "RUN_KIND_EVALUATION" ? "evaluations" : "runs";
  const cells = [
    h("td", {}, badge(stateName(run.state))),
    h("th", { scope: "row" }, h("a", { href: `#/${page}/${encodeURIComponent(run.run_id)}`, title: run.run_id }, run.name)),
    h("td", {}, labels(run.labels)),
    h("td", { class: "number", title: run.create_time }, age(run.create_time)),
    h("td", { class: "number" }, span(took / 1000)),
    h("td", { class: "number" }, count(run.last_sequence)),
    h("td", { class: "number" }, tokens(usage) ? compact(tokens(usage)) : ""),
    h("td", { class: "number" }, cost(usage)),
  ];
  const text = cells.map((cell) => cell.textContent).join("\u0000");
  if (row.dataset.text === text) return; // A link that has the focus keeps it.
  const focused = row.contains(document.activeElement);
  row.dataset.text = text;
  row.replaceChildren(...cells);
  if (focused) row.querySelector("a").focus();
}
