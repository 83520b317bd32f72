// Whether scores are worse than they were: a window beside the one before it, or one version beside another.

import { h, header, redraw } from "../shared/elements.js";
import { count, score as shown, shortName } from "../shared/format.js";

const NEEDED = 30; // The API's default.
const MEANING = {
  unchanged: "the difference may be chance",
  "too few": `fewer than ${NEEDED} on a side`,
};

function meaning(trend, lowerIsBetter) {
  if (trend in MEANING) return MEANING[trend];
  return `${(trend === "improved") === lowerIsBetter ? "lower" : "higher"}, and not by chance`;
}

// `mixed` are evaluators of which several versions are in sight; `others` the versions that the shown one can be compared with.
export function drawCheck(element, { changes, mixed, others, view }, onchange) {
  const against = h(
    "select",
    { "aria-label": "compare with", "data-key": "against", onchange: (event) => onchange({ against: event.target.value }) },
    h("option", { value: "" }, "the time before, as long"),
    others.map((version) => h("option", { value: version, selected: version === view.against }, `version ${version}, in the same time`)),
  );
  redraw(
    element,
    h("h2", {}, "Regression check"),
    h("p", { class: "nothing" }, `The means shown, compared with ${others.length ? "" : "the time before, as long"}`, others.length ? against : null, `. ${NEEDED} scores on each side are needed to judge.`),
    mixed.map(warning),
    changes.length
      ? h("div", { class: "scroll" }, h("table", {}, header("Score", "Trend", "#Before", "#Now", "#Difference"), h("tbody", {}, changes.map(row))))
      : h("p", { class: "nothing" }, "There is nothing to compare."),
  );
}

function warning({ evaluator, versions }) {
  const named = versions.map((version) => (version ? `v${version}` : "none")).join(", ");
  return h("p", { class: "warning" }, `${evaluator} is here in ${versions.length} versions (${named}), whose scores are not alike: choose one to compare like with like.`);
}

function row(change) {
  const trend = shortName(change.trend, "SCORE_TREND_") || "unknown";
  const isEmpty = !Number(change.baseline_count ?? 0) && !Number(change.candidate_count ?? 0);
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, change.name || "unnamed"),
    h("td", { "data-trend": trend }, h("b", {}, trend), h("div", { class: "note" }, isEmpty ? "neither numbers nor verdicts" : meaning(trend, change.higher_is_better === false)), failures(change)),
    h("td", { class: "number" }, side(change.baseline_mean, change.baseline_count, change.baseline_error_rate)),
    h("td", { class: "number" }, side(change.candidate_mean, change.candidate_count, change.candidate_error_rate)),
    h("td", { class: "number" }, difference(change)),
  );
}

const side = (mean, scores, errors) => [h("div", {}, mean === undefined ? "–" : shown(mean)), h("div", { class: "note" }, `of ${count(scores)}`), errors ? h("div", { class: "note errors" }, `${shown(errors * 100)} % failed`) : null];

const failures = ({ error_trend: trend }) => (trend === "SCORE_TREND_REGRESSED" ? h("div", { class: "note more-errors" }, "more failures, and not by chance") : null);

function difference({ difference: moved, difference_low: low, difference_high: high }) {
  if (moved === undefined) return "–";
  return [h("div", {}, signed(moved)), low === undefined ? null : h("div", { class: "note" }, `${signed(low)} to ${signed(high)}`)];
}

const signed = (value) => `${value > 0 ? "+" : ""}${shown(value)}`;
