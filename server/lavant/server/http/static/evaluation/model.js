// An evaluation, made of its events, and how it compares with another one. Pure.

import { RunModel } from "../run/model.js";
import { seconds } from "../shared/format.js";
import { toScore } from "../shared/recorded_scores.js";

const TOLERANCE = 1e-9;

export class EvaluationModel extends RunModel {
  constructor() {
    super();
    this.rows = [];
    this.scores = new Map();
    this.failed = 0;
  }

  get plan() {
    return this.started?.evaluation ?? {};
  }

  get total() {
    return Number(this.plan.row_count ?? this.progress?.total ?? 0);
  }

  row_finished(finished) {
    const row = toRow(finished);
    this.rows.push(row);
    if (row.failed) this.failed += 1;
    for (const score of row.scores.values()) this.#count(score);
    return undefined;
  }

  #count(score) {
    const key = score.name;
    const known = this.scores.get(key) ?? { name: key, version: score.version, sum: 0, count: 0, passed: 0, verdicts: 0, errors: 0, classes: new Map() };
    this.scores.set(key, known);
    if (score.error) known.errors += 1;
    else if (typeof score.value === "string") known.classes.set(score.value, (known.classes.get(score.value) ?? 0) + 1);
    else {
      known.sum += Number(score.value);
      known.count += 1;
      if (typeof score.value === "boolean") {
        known.verdicts += 1;
        known.passed += score.value ? 1 : 0;
      }
    }
  }
}

export const mean = (score) => (score.count ? score.sum / score.count : undefined);

export function toRow(finished) {
  const scores = new Map();
  for (const score of finished.scores ?? []) scores.set(score.name, toScore(score));
  return {
    id: finished.row_id,
    iteration: finished.iteration ?? 1,
    key: `${finished.row_id}#${finished.iteration ?? 1}`,
    run: finished.subject_run_id,
    scores,
    error: finished.error,
    failed: Boolean(finished.error) || [...scores.values()].some((score) => score.error),
    input: finished.input_json,
    output: finished.output_json,
    expected: finished.expected_output_json,
    took: seconds(finished.duration),
    metrics: finished.metrics ?? {},
  };
}

// Per score: how its mean moved, and the rows that came out otherwise. Only scores of the same evaluator's
// version can be compared; rows are the same if their ids and iterations are.
export function compare(rows, baseline) {
  const before = new Map(baseline.map((row) => [row.key, row]));
  const found = new Map();
  for (const row of rows) {
    const old = before.get(row.key);
    if (!old) continue;
    for (const [name, score] of row.scores) {
      const was = old.scores.get(name);
      if (!was || was.error || score.error) continue;
      const one = found.get(name) ?? { name, now: 0, then: 0, count: 0, better: [], worse: [], comparable: true };
      found.set(name, one);
      if (was.version !== score.version || typeof was.value !== typeof score.value) {
        one.comparable = false;
        continue;
      }
      if (typeof score.value === "string") {
        if (score.value !== was.value) one.changed = [...(one.changed ?? []), row];
        continue;
      }
      one.count += 1;
      one.now += Number(score.value);
      one.then += Number(was.value);
      const moved = Number(score.value) - Number(was.value);
      if (moved > TOLERANCE) one.better.push(row);
      else if (moved < -TOLERANCE) one.worse.push(row);
    }
  }
  return [...found.values()].map(verdict);
}

function verdict(one) {
  if (!one.comparable) return { ...one, verdict: "not comparable", delta: undefined };
  const delta = one.count ? (one.now - one.then) / one.count : undefined;
  const moved = delta === undefined || Math.abs(delta) <= TOLERANCE ? "unchanged" : delta > 0 ? "better" : "worse";
  return { ...one, verdict: moved, delta };
}
