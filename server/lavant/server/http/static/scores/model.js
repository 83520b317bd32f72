// The view of the scores page as its address holds it, the API requests it needs, and sums of scores as lines over time. Pure.

import { milliseconds, score as shown } from "../shared/format.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

// How much time is shown, and the buckets that fit it.
export const RANGES = {
  "1h": { name: "1 hour", length: HOUR, bucket: 2 * MINUTE },
  "6h": { name: "6 hours", length: 6 * HOUR, bucket: 10 * MINUTE },
  "24h": { name: "24 hours", length: DAY, bucket: 30 * MINUTE },
  "7d": { name: "7 days", length: 7 * DAY, bucket: 4 * HOUR },
  "30d": { name: "30 days", length: 30 * DAY, bucket: DAY },
  "90d": { name: "90 days", length: 90 * DAY, bucket: 2 * DAY },
};

export const STATISTICS = {
  mean: { name: "Mean", of: (group) => group.mean },
  pass_rate: { name: "Pass rate", of: (group) => group.pass_rate },
  p50: { name: "p50", of: (group) => group.percentiles?.[0] },
  p95: { name: "p95", of: (group) => group.percentiles?.[1] },
};
const PERCENTILES = [50, 95];

// What has a line of its own. Scores of different versions are never added up; those of different people are.
const ALIKE = ["name", "version"];
export const LINES = {
  name: { name: "score", fields: ALIKE },
  evaluator: { name: "evaluator", fields: ["evaluator", ...ALIKE] },
  run_name: { name: "agent", fields: ["run_name", ...ALIKE] },
  rule_id: { name: "rule", fields: ["rule_id", ...ALIKE] },
};
const LABEL = "label:";
export const ofLabel = (lines) => (lines.startsWith(LABEL) ? lines.slice(LABEL.length) : "");

// An empty one asks for scores that have none: rule_id= for feedback.
export const CHOICES = ["rule_id", "name", "evaluator", "version", "run_name"];
const FREE = ["label", "against"]; // Texts as they are.
const DEFAULTS = { range: "24h", lines: "name", statistic: "mean" };

export function read(text) {
  const query = new URLSearchParams(text);
  const view = { until: whole(query.get("until")), at: whole(query.get("at")), of: fields(query.get("of")) };
  for (const name of FREE) view[name] = query.get(name) ?? "";
  for (const name of CHOICES) view[name] = query.get(name) ?? undefined;
  view.range = known(RANGES, query.get("range")) ?? DEFAULTS.range;
  view.statistic = known(STATISTICS, query.get("statistic")) ?? DEFAULTS.statistic;
  const lines = query.get("lines") ?? "";
  view.lines = known(LINES, lines) ?? (ofLabel(lines) ? lines : DEFAULTS.lines);
  return view;
}

export function write(view) {
  const query = new URLSearchParams();
  for (const name of ["range", "lines", "statistic"]) if (view[name] !== DEFAULTS[name]) query.set(name, view[name]);
  for (const name of CHOICES) if (view[name] !== undefined) query.set(name, view[name]);
  for (const name of FREE) if (view[name]) query.set(name, view[name]);
  for (const name of ["until", "at"]) if (view[name] !== undefined) query.set(name, instant(view[name]));
  if (view.at !== undefined && view.of) query.set("of", JSON.stringify(view.of));
  return query.toString();
}

// The time that is shown: whole buckets, of which the last may still be filling.
export function windowOf(view, now) {
  const { length, bucket } = RANGES[view.range];
  const end = Math.ceil((view.until ?? now) / bucket) * bucket;
  return { start: end - length, end, length, bucket };
}

export const within = ({ start, end }) => ({ subject_ended_after: instant(start), subject_ended_before: instant(end) });

// What the regression check asks: this time beside the one before it, or a version beside another.
export function comparisonOf(view, window) {
  const asked = { ...filterOf(view), ...within(window) };
  if (view.against && view.version !== undefined) return { ...asked, baseline_version: [view.against] };
  return { ...asked, baseline_ended_after: instant(window.start - window.length), baseline_ended_before: instant(window.start) };
}

export function filterOf(view) {
  const filter = {};
  for (const name of CHOICES) if (view[name] !== undefined) filter[name] = [view[name]];
  if (view.label) filter.label = [view.label];
  return filter;
}

export function summaryOf(view) {
  const by = fieldsOf(view.lines).map((field) => (field === "rule_id" ? "rule" : field));
  return { ...filterOf(view), group_by: by, group_by_label: ofLabel(view.lines), percentile: PERCENTILES };
}

// The scores behind a point: of one line, or of all lines of a bucket.
export function behind(view, { bucket }) {
  const filter = filterOf(view);
  for (const [field, value] of Object.entries(view.of ?? {})) {
    if (CHOICES.includes(field)) filter[field] = [value];
    else if (value) filter.label = [...new Set([...(filter.label ?? []), `${ofLabel(field)}=${value}`])];
  }
  return { ...filter, ...within({ start: view.at, end: view.at + bucket }) };
}

// What identifies a group's line.
function lineOf(group, lines) {
  const label = ofLabel(lines);
  const of = label ? { [lines]: group.labels?.[label] ?? "" } : {};
  for (const field of fieldsOf(lines)) of[field] = group[field] ?? "";
  return of;
}

const fieldsOf = (lines) => (ofLabel(lines) ? ALIKE : LINES[lines].fields);

export const instant = (time) => new Date(time).toISOString();

const known = (names, name) => (Object.hasOwn(names, name ?? "") ? name : undefined);

function whole(time) {
  const value = milliseconds(time);
  return Number.isNaN(value) ? undefined : value;
}

function fields(text) {
  try {
    const value = JSON.parse(text ?? "null");
    return value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([name, one]) => [name, String(one)])) : undefined;
  } catch {
    return undefined;
  }
}

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
