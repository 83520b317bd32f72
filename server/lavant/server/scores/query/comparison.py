"""Comparison of scores of two sides: whether they differ by more than chance."""

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist

import apsw

from lavant.server.scores.index.tally import Tally
from lavant.server.scores.query.aggregation import Group, Grouping, aggregate, directions
from lavant.v1.score_service_pb2 import ScoreChange, ScoreFilter, ScoreTrend

_LEAST = 2  # values on each side: one value alone has no variance


def compare_scores(
    connection: apsw.Connection,
    tenant: str,
    baseline: ScoreFilter,
    candidate: ScoreFilter,
    *,
    min_count: int,
    confidence: float,
) -> list[ScoreChange]:
    """Compare the scores of two filters by their names, in the order of the names; raises as `aggregate` does."""
    by_name = Grouping(("name",))
    sides = [aggregate(connection, tenant, wanted, by_name) for wanted in (baseline, candidate)]
    known = {**directions(connection, tenant, baseline), **directions(connection, tenant, candidate)}
    return compare(*sides, min_count=min_count, confidence=confidence, directions=known)


def compare(
    baseline: Iterable[Group],
    candidate: Iterable[Group],
    *,
    min_count: int,
    confidence: float,
    directions: Mapping[str, bool] | None = None,
) -> list[ScoreChange]:
    """Compare groups by score's name, in the order of the names.

    `directions` has, by name, whether a higher value is better, for the scores that say so.

    The interval of the difference of means is Welch's, with the normal distribution in place of Student's: they differ
    by 3 % and less from 30 values on.
    """
    sides = [{group.values[0] or "": group.tally for group in groups} for groups in (baseline, candidate)]
    before, after = sides
    names = sorted(before.keys() | after.keys())
    least = max(min_count, _LEAST)
    return [
        _change(
            name, before.get(name, Tally()), after.get(name, Tally()), least, confidence, (directions or {}).get(name)
        )
        for name in names
    ]


def _change(
    name: str, before: Tally, after: Tally, min_count: int, confidence: float, higher_is_better: bool | None
) -> ScoreChange:
    change = ScoreChange(
        name=name,
        baseline_error_count=before.errors,
        candidate_error_count=after.errors,
        baseline_error_rate=before.error_rate,
        candidate_error_rate=after.error_rate,
        baseline_count=before.values,
        candidate_count=after.values,
        baseline_mean=before.mean if before.values else None,
        candidate_mean=after.mean if after.values else None,
        trend=ScoreTrend.SCORE_TREND_TOO_FEW,
        error_trend=ScoreTrend.SCORE_TREND_TOO_FEW,
        higher_is_better=higher_is_better,
    )
    certainty = -NormalDist().inv_cdf((1 - confidence) / 2)  # the upper tail would round to 1, which has no quantile
    if before.values and after.values:
        change.difference = after.mean - before.mean
    if min(before.values, after.values) >= min_count:
        reach = certainty * math.sqrt(_variance(before) + _variance(after))
        change.difference_low, change.difference_high = change.difference - reach, change.difference + reach
        change.trend = _trend(-change.difference if higher_is_better is False else change.difference, reach)
    if min(before.count, after.count) >= min_count:
        reach = certainty * math.sqrt(_variance_of_errors(before) + _variance_of_errors(after))
        change.error_trend = _trend(change.baseline_error_rate - change.candidate_error_rate, reach)
    return change


def _variance(tally: Tally) -> float:
    """Return the variance of the mean."""
    return tally.squares / (tally.values - 1) / tally.values


def _variance_of_errors(tally: Tally) -> float:
    """Return the variance of the error rate: of the mean of ones and zeros."""
    rate = tally.error_rate or 0.0
    return rate * (1 - rate) / (tally.count - 1)


def _trend(gain: float, reach: float) -> "ScoreTrend.ValueType":
    """Return the trend of a gain that is known to within `reach`."""
    if gain - reach > 0:
        return ScoreTrend.SCORE_TREND_IMPROVED
    if gain + reach < 0:
        return ScoreTrend.SCORE_TREND_REGRESSED
    return ScoreTrend.SCORE_TREND_UNCHANGED
