// Scores by time, the evaluated runs of each point, whether they got worse, the rules and their alerts.
//
// The address holds what is shown: whoever opens it sees the same.

import { stretch } from "./chart.js";
import { drawCheck } from "./comparison.js";
import { ScoreFilters } from "./filters.js";
import { behind, belongs, comparisonOf, filterOf, mixedVersions, RANGES, read, summaryOf, titleOf, toBars, toLines, windowOf, within, write } from "./model.js";
import { ScorePlot } from "./plot.js";
import { AlertModel, drawAlerts, drawChanges, drawRules, followAlerts } from "./rules.js";
import { get, pages } from "../shared/api.js";
import { h, perFrame, replace } from "../shared/elements.js";
import { EvaluatedRuns } from "../shared/recorded_scores.js";

const SUMMARY = "/api/v1/scores/summary";
const REFRESH = 10_000;
const OF_THE_VIEW = ["statistic", "at", "of", "against"]; // Changes to these leave the chosen point as it is.

export function scoresPage(main, query, setState) {
  let view = read(query);
  let round = 0;
  let asking = new AbortController();
  const leaving = new AbortController();
  let rules;
  let loaded;
  let over = false;
  let lacksChoices = false;
  const alerts = new AlertModel();
  const firing = h("section", { class: "alerts", "aria-label": "Alerts", "aria-live": "polite" });
  const changes = h("details", { class: "changes", hidden: true }, h("summary", {}, "What alerts did lately"), h("ul"));
  const filters = new ScoreFilters(change);
  const plot = new ScorePlot(filters.display, { choose, change, again: () => load(true) });
  const evaluated = new EvaluatedRuns();
  const check = h("section", { class: "check", "aria-label": "Regression check" });
  const ruleList = h("section", { class: "rules", "aria-label": "Rules" });
  document.title = "Scores · lavant";
  replace(main, firing, h("div", { class: "heading" }, h("h1", {}, "Scores"), plot.time, filters.range), filters.element, plot.element, evaluated.element, check, ruleList, changes);

  const draw = perFrame(() => {
    if (over) return;
    filters.draw(view);
    drawAlerts(firing, alerts, showAlert);
    drawChanges(changes, alerts);
    if (rules) drawRules(ruleList, rules, alerts, (rule) => change({ ...nothingChosen, rule_id: rule }));
    if (!loaded) return;
    plot.draw({ ...loaded, lines: toLines(loaded.groups, loaded.totals, view), bars: toBars(loaded.groups), view });
    drawCheck(check, { ...loaded, others: otherVersions(), view }, change);
  });

  function change(changed) {
    const keeps = Object.keys(changed).every((name) => OF_THE_VIEW.includes(name));
    view = { ...view, ...(keeps ? {} : { at: undefined, of: undefined }), ...("version" in changed ? { against: "" } : {}), ...changed };
    const text = write(view);
    history.pushState(null, "", text ? `#/scores?${text}` : "#/scores");
    if (!keeps || "against" in changed) load("range" in changed || "until" in changed);
    draw();
  }

  function choose(time, line) {
    change({ at: time, of: line?.of });
    showEvaluated();
    evaluated.element.focus({ preventScroll: true });
    evaluated.element.firstElementChild.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  function showEvaluated() {
    if (view.at === undefined) return evaluated.hide();
    const window = RANGES[view.range];
    const title = `${view.of ? titleOf(view.of, view.lines) : "All scores"} · ${stretch(view.at, window.bucket)}`;
    return evaluated.show(title, behind(view, window), (score) => belongs(score, view.of), () => {
      change({ at: undefined, of: undefined });
      evaluated.hide();
      plot.chart.focus();
    });
  }

  function showAlert({ rule, alert }) {
    const known = rules?.find((one) => one.rule_id === rule)?.alerts?.find((one) => one.name === alert);
    change({ ...nothingChosen, rule_id: rule, name: known?.score_name || undefined });
  }

  function otherVersions() {
    return view.version === undefined ? [] : [...filters.known.version.keys()].filter((one) => one && one !== view.version);
  }

  async function load(withChoices, isRefresh = false) {
    round += 1;
    const mine = round;
    asking.abort();
    asking = new AbortController();
    lacksChoices ||= withChoices;
    if (!isRefresh) {
      plot.wait();
      if (view.at === undefined) evaluated.hide();
    }
    const { signal } = asking;
    const window = windowOf(view, Date.now());
    const asked = { ...summaryOf(view), ...within(window) };
    const versions = { ...filterOf(view), ...within(window), group_by: ["evaluator", "version"] };
    try {
      const [byTime, totals, seen, compared] = await Promise.all([
        get(SUMMARY, { ...asked, bucket: window.bucket / 1000 }, signal),
        get(SUMMARY, asked, signal),
        get(SUMMARY, versions, signal).catch(() => ({})),
        get("/api/v1/scores/comparison", comparisonOf(view, window), signal),
      ]);
      if (mine !== round) return;
      loaded = { window, groups: byTime.groups ?? [], totals: totals.groups ?? [], mixed: mixedVersions(seen.groups ?? []), changes: compared.changes ?? [] };
    } catch (error) {
      if (mine !== round || (isRefresh && loaded)) return; // What is shown stays: the next refresh may do better.
      loaded = undefined;
      plot.fail(error);
      replace(check);
    }
    draw();
    if (!lacksChoices) return;
    lacksChoices = false;
    filters.load(window, leaving.signal).then(draw); // The chart comes first.
  }

  async function loadRules() {
    const found = [];
    try {
      for await (const page of pages("/api/v1/rules", "rules")) found.push(...page);
      rules = found;
      filters.offer(rules);
    } catch (error) {
      if (!rules) replace(ruleList, h("h2", {}, "Rules"), h("p", { class: "fault" }, error.message));
    }
    draw();
  }

  function refresh(withChoices = false) {
    if (document.hidden) return;
    loadRules();
    if (view.until === undefined) load(withChoices, true);
  }

  const stopAlerts = followAlerts({
    state: setState,
    event(event) {
      alerts.apply(event);
      draw();
    },
  });
  let ticks = 0;
  const ticking = setInterval(() => refresh((ticks += 1) % 6 === 0), REFRESH);
  draw();
  load(true);
  loadRules();
  showEvaluated();
  return () => {
    over = true;
    round += 1;
    asking.abort();
    leaving.abort();
    evaluated.hide();
    plot.close();
    clearInterval(ticking);
    stopAlerts();
  };
}

const nothingChosen = { rule_id: undefined, name: undefined, evaluator: undefined, version: undefined, run_name: undefined, label: "" };
