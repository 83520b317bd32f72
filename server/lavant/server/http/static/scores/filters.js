// Which scores are shown, to be chosen from those that there are.

import { CHOICES, LINES, ofLabel, RANGES, STATISTICS, within } from "./model.js";
import { get } from "../shared/api.js";
import { h, replace } from "../shared/elements.js";
import { count } from "../shared/format.js";

const ANY = { rule_id: "Any rule", name: "Any score", evaluator: "Any evaluator", version: "Any version", run_name: "Any agent" };
const NONE = { rule_id: "feedback", evaluator: "no evaluator", version: "no version" };

export class ScoreFilters {
  // `onchange(changes)` hears what is to be shown otherwise.
  constructor(onchange) {
    this.choices = Object.fromEntries(
      CHOICES.map((name) => [name, h("select", { "aria-label": ANY[name].replace("Any ", ""), onchange: (event) => onchange({ [name]: chosen(event.target.value) }) })]),
    );
    this.known = Object.fromEntries(CHOICES.map((name) => [name, new Map()]));
    this.range = picker("range", RANGES, (range) => onchange({ range, until: undefined }));
    this.statistic = radios("Statistic", STATISTICS, (statistic) => onchange({ statistic }));
    this.lines = h("select", { "aria-label": "a line for each", onchange: (event) => onchange({ lines: event.target.value }) });
    this.names = h("datalist", { id: "labels" });
    this.label = h("input", { type: "search", list: "labels", placeholder: "label=value", "aria-label": "label", onchange: () => onchange({ label: this.label.value.trim() }) });
    this.labelNames = new Set();
    this.element = h(
      "form",
      { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      CHOICES.map((name) => this.choices[name]),
      this.label,
      this.names,
    );
    this.display = h("div", { class: "display" }, this.statistic, h("label", { class: "note" }, "a line for each ", this.lines));
  }

  // Asks for the values within a time. Where there are too many to list, those known before stay.
  async load(window, signal) {
    const facets = { rule_id: "rule", name: "name", evaluator: "evaluator", version: "version", run_name: "run_name" };
    this.round = (this.round ?? 0) + 1;
    const mine = this.round;
    const ask = async (name) => {
      const { groups = [] } = await get("/api/v1/scores/summary", { ...within(window), group_by: facets[name] }, signal);
      if (mine === this.round) this.known[name] = new Map(groups.map((group) => [group[name] ?? "", Number(group.count ?? 0)]));
    };
    await Promise.allSettled(CHOICES.map(ask));
  }

  // Rules may have scored nothing yet; labels are known from them alone.
  offer(rules) {
    this.rules = rules.map((rule) => rule.rule_id);
    const labels = rules.flatMap((rule) => Object.entries(rule.labels ?? {}));
    this.labelNames = new Set(labels.map(([name]) => name).sort());
    replace(this.names, [...new Set(labels.map(([name, value]) => `${name}=${value}`))].sort().map((value) => h("option", { value })));
  }

  draw(view) {
    for (const name of CHOICES) this.#drawChoice(name, view[name]);
    this.range.value = view.range;
    for (const input of this.statistic.querySelectorAll("input")) input.checked = input.value === view.statistic;
    if (document.activeElement !== this.label) this.label.value = view.label;
    const labels = new Set([...this.labelNames, ofLabel(view.lines)].filter(Boolean));
    const options = [...Object.entries(LINES).map(([key, { name }]) => [key, name]), ...[...labels].map((name) => [`label:${name}`, `label ${name}`])];
    fill(this.lines, options, view.lines);
  }

  #drawChoice(name, value) {
    const known = new Map(this.known[name]);
    for (const rule of name === "rule_id" ? (this.rules ?? []) : []) if (!known.has(rule)) known.set(rule, 0);
    if (value !== undefined && !known.has(value)) known.set(value, 0);
    const sorted = [...known].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
    const options = sorted.map(([one, scores]) => [`=${one}`, `${one || NONE[name] || "unnamed"}${scores ? ` (${count(scores)})` : ""}`]);
    fill(this.choices[name], [["", ANY[name]], ...options], value === undefined ? "" : `=${value}`);
  }
}

const chosen = (value) => (value ? value.slice(1) : undefined);

// Leaves alone what has not changed, so that a list that is open stays open.
function fill(select, options, value) {
  const told = JSON.stringify(options);
  if (select.dataset.options !== told) {
    select.dataset.options = told;
    replace(select, options.map(([key, name]) => h("option", { value: key }, name)));
  }
  select.value = value;
}

function picker(name, options, onpick) {
  return h("select", { "aria-label": name, onchange: (event) => onpick(event.target.value) }, Object.entries(options).map(([value, one]) => h("option", { value }, one.name)));
}

function radios(legend, options, onpick) {
  return h(
    "fieldset",
    { class: "choice" },
    h("legend", {}, legend),
    Object.entries(options).map(([value, one]) => h("label", {}, h("input", { type: "radio", name: "statistic", value, onchange: () => onpick(value) }), h("span", {}, one.name))),
  );
}
