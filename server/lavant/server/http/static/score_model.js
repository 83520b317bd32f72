// Scores added up, as lines over time. Pure.

import { score as shown } from "./format.js";
import { STATISTICS, lineOf, ofLabel } from "./score_view.js";

// One line a group, the one of most scores first: its points by time, and what it adds up to in all.
export function toLines(groups, totals, view) {
  const value = STATISTICS[view.statistic].of;
  const lines = new Map();
  for (const total of totals) {
    const line = { of: lineOf(total, view.lines), points: [], ...sums(total), value: value(total) };
    line.key = JSON.stringify(line.of);
    line.title = titleOf(line.of, view.lines);
    lines.set(line.key, line);
  }
  for (const group of groups) {
    const line = lines.get(JSON.stringify(lineOf(group, view.lines)));
    line?.points.push({ time: Date.parse(group.start_time), ...sums(group), value: value(group) });
  }
  return [...lines.values()].sort((a, b) => b.count - a.count || (a.key < b.key ? -1 : 1));
}

// All scores of each bucket, whatever their line.
export function toBars(groups) {
  const bars = new Map();
  for (const group of groups) {
    const time = Date.parse(group.start_time);
    const bar = bars.get(time) ?? { time, count: 0, errors: 0 };
    bars.set(time, bar);
    bar.count += Number(group.count ?? 0);
    bar.errors += Number(group.error_count ?? 0);
  }
  return [...bars.values()].sort((a, b) => a.time - b.time);
}

function sums(group) {
  return {
    count: Number(group.count ?? 0),
    errors: Number(group.error_count ?? 0),
    classes: Object.entries(group.label_counts ?? {}).map(([name, times]) => [name, Number(times)]).sort((a, b) => b[1] - a[1]),
  };
}

// What a line is called.
export function titleOf(of, lines) {
  const label = ofLabel(lines);
  const named = label ? (of[lines] ? `${label}=${of[lines]}` : `no ${label}`) : { rule_id: of.rule_id || "feedback", run_name: of.run_name, evaluator: of.evaluator || "no evaluator" }[lines];
  return [named, of.name, of.version && `v${of.version}`].filter(Boolean).join(" · ") || "unnamed";
}

// Whether a score belongs to a line: the API cannot be asked for scores without a label.
export function belongs(recorded, of) {
  return Object.entries(of ?? {}).every(([field, value]) => !ofLabel(field) || (recorded.labels?.[ofLabel(field)] ?? "") === value);
}

// Evaluators that several versions of are in sight: their scores are not to be compared as one.
export function mixedVersions(groups) {
  const versions = new Map();
  for (const { evaluator = "", version = "" } of groups) {
    if (evaluator) versions.set(evaluator, [...(versions.get(evaluator) ?? []), version]);
  }
  return [...versions].filter(([, found]) => found.length > 1).map(([evaluator, found]) => ({ evaluator, versions: found.sort((a, b) => a.localeCompare(b, "en", { numeric: true })) }));
}

export function written(value, statistic) {
  if (value === undefined) return "–";
  return statistic === "pass_rate" ? `${shown(value * 100)} %` : shown(value);
}
