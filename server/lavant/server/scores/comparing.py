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
        baseline_count=before.values,
        candidate_count=after.values,
        baseline_mean=before.mean if before.values else None,
        candidate_mean=after.mean if after.values else None,
        verdict=ScoreVerdict.SCORE_VERDICT_TOO_FEW,
    )
    if before.values and after.values:
        change.difference = after.mean - before.mean
    if min(before.values, after.values) >= min_count:
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(_variance(before) + _variance(after))
        change.difference_low, change.difference_high = change.difference - reach, change.difference + reach
        change.verdict = _verdict(change)
    return change


def _variance(tally: Tally) -> float:
    """That of the mean."""
    return tally.squares / (tally.values - 1) / tally.values


def _verdict(change: ScoreChange) -> "ScoreVerdict.ValueType":
    if change.difference_low > 0:
        return ScoreVerdict.SCORE_VERDICT_IMPROVED
    if change.difference_high < 0:
        return ScoreVerdict.SCORE_VERDICT_REGRESSED
    return ScoreVerdict.SCORE_VERDICT_UNCHANGED
