// Rules: what they judge, how far they are, and their alerts.

import { h } from "./dom.js";
import { age, count, score as shown } from "./format.js";
import { badge, header, labels, notes, redraw } from "./parts.js";
import { progressBar } from "./run_page.js";

const COLUMNS = ["Rule", "Evaluators", "#Seen", "#Drawn", "#Judged", "#Failed", "#Waiting", "Alerts"];

// `show(rule_id)` is to show a rule's scores.
export function drawRules(element, rules, alerts, show) {
  redraw(
    element,
    h("h2", {}, "Rules"),
    rules.length
      ? h("div", { class: "scroll" }, h("table", { class: "rules" }, header(...COLUMNS), h("tbody", {}, rules.map((rule) => row(rule, alerts, show)))))
      : h("p", { class: "nothing" }, "No rules yet: one says which finished runs are judged, and by what."),
  );
}

function row(rule, alerts, show) {
  const { runs_seen: seen, runs_drawn: drawn, runs_judged: judged, runs_failed: failed } = rule.progress ?? {};
  const waiting = Number(drawn ?? 0) - Number(judged ?? 0) - Number(failed ?? 0);
  return h(
    "tr",
    { "data-rule": rule.rule_id },
    h(
      "th",
      { scope: "row" },
      h("button", { type: "button", class: "link", "data-key": rule.rule_id, onclick: () => show(rule.rule_id) }, rule.rule_id),
      rule.paused ? [" ", badge("paused")] : null,
      h("div", {}, notes(sampled(rule), rule.update_time && `changed ${age(rule.update_time)} ago`)),
      Object.keys(rule.labels ?? {}).length ? h("div", {}, labels(rule.labels)) : null,
      rule.evaluation_id ? h("div", {}, h("a", { href: `#/evaluations/${encodeURIComponent(rule.evaluation_id)}` }, "Results now")) : null,
      backfill(rule.backfill),
    ),
    h("td", {}, (rule.evaluators ?? []).map(({ name, version }) => h("div", {}, h("span", {}, name), " ", notes(version && `v${version}`)))),
    [seen, drawn, judged].map((value) => h("td", { class: "number" }, count(value))),
    h("td", { class: "number", "data-verdict": Number(failed ?? 0) ? "worse" : undefined }, count(failed)),
    h("td", { class: "number" }, count(Math.max(0, waiting))),
    h("td", {}, (rule.alerts ?? []).map((alert) => alertLine(alert, alerts.of(rule.rule_id, alert.name), statusOf(rule, alert)))),
  );
}

function sampled({ sample_rate: rate = 1, filter = {} }) {
  const names = filter.names?.length ? filter.names.join(", ") : "all agents";
  return `${shown(rate * 100)} % of ${names}`;
}

function backfill(past) {
  if (!past) return null;
  const text = `${count(past.runs_seen)} seen, ${count(past.runs_drawn)} drawn`;
  return h("div", { class: "backfill" }, past.done ? notes(`backfilled: ${text}`) : [notes(`backfill at work: ${text}`), progressBar({})]);
}

const statusOf = (rule, alert) => (rule.alert_statuses ?? []).find(({ name }) => name === alert.name);

function alertLine(alert, change, status) {
  const cannot = status?.state === "ALERT_STATE_CANNOT_FIRE";
  const bound = alert.below === undefined ? `above ${shown(alert.above ?? 0)}` : `below ${shown(alert.below)}`;
  return h("div", {}, alert.name, " ", change?.firing ? [h("span", { class: "badge", "data-state": "failed" }, "firing"), " "] : null, notes(bound), cannot ? h("div", { class: "note", "data-verdict": "worse" }, status.message) : null);
}
