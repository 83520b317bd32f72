// What the page of scores shows, as its address says it, and what that asks of the API. Pure.

import { milliseconds } from "./format.js";

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

export const within = ({ start, end }) => ({ start_time: instant(start), end_time: instant(end) });

// What the regression check asks: this time beside the one before it, or a version beside another.
export function comparisonOf(view, window) {
  const asked = { ...filterOf(view), ...within(window) };
  if (view.against && view.version !== undefined) return { ...asked, baseline_version: [view.against] };
  return { ...asked, baseline_start_time: instant(window.start - window.length), baseline_end_time: instant(window.start) };
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
export function lineOf(group, lines) {
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
