// Rules with their progress and alerts: the alerts that fire, and their latest changes.

import { instant } from "./model.js";
import { follow, get } from "../shared/api.js";
import { badge, h, header, labels, notes, progressBar, redraw, replace } from "../shared/elements.js";
import { age, count, milliseconds, score as shown } from "../shared/format.js";

const KEPT = 50;

export class AlertModel {
  constructor() {
    this.standing = new Map();
    this.changes = [];
  }

  apply(event) {
    const { rule_id: rule, alert, firing = false, value = 0, threshold = 0, count = 0, message = "" } = event.alert_changed;
    const change = { rule, alert, firing, value, threshold, count: Number(count), message, time: milliseconds(event.record_time ?? event.event_time) };
    this.standing.set(JSON.stringify([rule, alert]), change);
    this.changes = [change, ...this.changes.slice(0, KEPT - 1)];
  }

  of(rule, alert) {
    return this.standing.get(JSON.stringify([rule, alert]));
  }

  // Those that fire now, the latest first.
  get firing() {
    return [...this.standing.values()].filter((change) => change.firing).sort((a, b) => b.time - a.time);
  }
}

const AGAIN = 5000;

// Follows the run that records alerts, which exists from the first one; returns a function that stops it.
export function followAlerts(on) {
  let stop = () => {};
  let timer = 0;
  let over = false;

  async function begin() {
    const { events } = await get("/api/v1/alerts", { page_size: 1 }).then(({ events = [] }) => ({ events }), () => ({}));
    if (over) return;
    if (events?.length) stop = follow("/api/v1/runs/lavant.alerts/stream", { type: "alert_changed" }, ["alert_changed"], { state: on.state, event: (_, event) => on.event(event) }, "");
    else {
      on.state(events ? "live" : "reconnecting");
      timer = setTimeout(begin, AGAIN);
    }
  }

  begin();
  return () => {
    over = true;
    clearTimeout(timer);
    stop();
  };
}

// `show(change)` is to show the scores that an alert is about.
export function drawAlerts(element, model, show) {
  redraw(
    element,
    model.firing.map((change) =>
      h(
        "article",
        { class: "alert" },
        h("b", {}, change.alert),
        h("span", {}, summary(change)),
        h("span", { class: "note" }, `rule ${change.rule}, for ${age(instant(change.time))}`),
        h("button", { type: "button", class: "link", "data-key": `${change.rule} ${change.alert}`, onclick: () => show(change) }, "Show its scores"),
      ),
    ),
  );
}

export function drawChanges(element, model) {
  const lines = model.changes.map((change) =>
    h("li", {}, h("span", { class: "badge", "data-state": change.firing ? "failed" : "succeeded" }, change.firing ? "firing" : "over"), ` ${change.alert} `, h("span", { class: "note" }, `rule ${change.rule}, ${summary(change)}, ${age(instant(change.time))} ago`)),
  );
  element.hidden = !lines.length;
  replace(element.querySelector("ul"), lines);
}

const summary = ({ message, value, threshold, count: scores }) => message || `${shown(value)} where ${shown(threshold)} is the bound, over ${count(scores)} scores`;

const COLUMNS = ["Rule", "Evaluators", "#Examined", "#Selected", "#Evaluated", "#Failed", "#Waiting", "Alerts"];

// `show(rule_id)` is to show a rule's scores.
export function drawRules(element, rules, alerts, show) {
  redraw(
    element,
    h("h2", {}, "Rules"),
    rules.length
      ? h("div", { class: "scroll" }, h("table", { class: "rules" }, header(...COLUMNS), h("tbody", {}, rules.map((rule) => row(rule, alerts, show)))))
      : h("p", { class: "nothing" }, "No rules yet: one says which finished runs are evaluated, and by what."),
  );
}

function row(rule, alerts, show) {
  const { runs_examined: examined, runs_selected: selected, runs_evaluated: evaluated, runs_failed: failed } = rule.progress ?? {};
  const waiting = Number(selected ?? 0) - Number(evaluated ?? 0) - Number(failed ?? 0);
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
    [examined, selected, evaluated].map((value) => h("td", { class: "number" }, count(value))),
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
  const text = `${count(past.runs_examined)} examined, ${count(past.runs_selected)} selected`;
  return h("div", { class: "backfill" }, past.done ? notes(`backfilled: ${text}`) : [notes(`backfill at work: ${text}`), progressBar({})]);
}

const statusOf = (rule, alert) => (rule.alert_statuses ?? []).find(({ name }) => name === alert.name);

function alertLine(alert, change, status) {
  const cannot = status?.state === "ALERT_STATE_CANNOT_FIRE";
  const bound = alert.below === undefined ? `above ${shown(alert.above ?? 0)}` : `below ${shown(alert.below)}`;
  return h("div", {}, alert.name, " ", change?.firing ? [h("span", { class: "badge", "data-state": "failed" }, "firing"), " "] : null, notes(bound), cannot ? h("div", { class: "note", "data-verdict": "worse" }, status.message) : null);
}
