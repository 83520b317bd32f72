"""Whether scores have changed, and not by chance."""

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist

from lavant.server.scores.tally import Tally
from lavant.server.scores.totals import Group
from lavant.v1.score_service_pb2 import ScoreChange, ScoreVerdict

_LEAST = 2  # values on each side: one alone tells nothing of chance


def compare(
    baseline: Iterable[Group], candidate: Iterable[Group], *, min_count: int, confidence: float
) -> list[ScoreChange]:
    """Compare groups by score's name, in the order of the names.

    The interval of the difference of means is Welch's, with the normal distribution in place of Student's: they differ
    by 3 % and less from 30 values on.
    """
    sides = [{group.values[0] or "": group.tally for group in groups} for groups in (baseline, candidate)]
    names = sorted(set().union(*sides))
    return [_change(name, sides[0], sides[1], max(min_count, _LEAST), confidence) for name in names]


def _change(
    name: str, baseline: Mapping[str, Tally], candidate: Mapping[str, Tally], min_count: int, confidence: float
) -> ScoreChange:
    before, after = baseline.get(name, Tally()), candidate.get(name, Tally())
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
        verdict=ScoreVerdict.SCORE_VERDICT_TOO_FEW,
        error_verdict=ScoreVerdict.SCORE_VERDICT_TOO_FEW,
    )
    certainty = NormalDist().inv_cdf((1 + confidence) / 2)
    if before.values and after.values:
        change.difference = after.mean - before.mean
    if min(before.values, after.values) >= min_count:
        reach = certainty * math.sqrt(_variance(before) + _variance(after))
        change.difference_low, change.difference_high = change.difference - reach, change.difference + reach
        change.verdict = _verdict(change.difference, reach)
    if min(before.count, after.count) >= min_count:
        reach = certainty * math.sqrt(_variance_of_errors(before) + _variance_of_errors(after))
        change.error_verdict = _verdict(change.baseline_error_rate - change.candidate_error_rate, reach)
    return change


def _variance(tally: Tally) -> float:
    """That of the mean."""
    return tally.squares / (tally.values - 1) / tally.values


def _variance_of_errors(tally: Tally) -> float:
    """That of the error rate: of the mean of ones and zeros."""
    rate = tally.error_rate or 0.0
    return rate * (1 - rate) / (tally.count - 1)


def _verdict(gain: float, reach: float) -> "ScoreVerdict.ValueType":
    """Tell what a difference means that is known to within so much; more is better."""
    if gain - reach > 0:
        return ScoreVerdict.SCORE_VERDICT_IMPROVED
    if gain + reach < 0:
        return ScoreVerdict.SCORE_VERDICT_REGRESSED
    return ScoreVerdict.SCORE_VERDICT_UNCHANGED
