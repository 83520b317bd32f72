"""How an evaluation compares with an earlier one. Pure."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from lavant.client._rows import Row, Score

Verdict = Literal["better", "worse", "unchanged", "not_comparable"]
_TOLERANCE = 1e-9


class ScoreComparison(BaseModel):
    """How one score moved against a baseline: its mean, and the rows that came out otherwise.

    Rows are the same if their ids and iterations are. A row counts if it has the score in one evaluation, and in the
    other either has it or failed. A row that failed did not pass: a verdict is 0 there; a number has no value, but if
    more rows failed, the verdict is "worse" whatever the others gave. `failed` are the rows that had the score in the
    baseline and failed now. `changed` are rows with another class. `reason` says why scores are not comparable, as
    those of different versions of an evaluator; then `delta` is None. A comparison without a name says why there is
    nothing to compare at all.

    Example:
        [correct] = await client.evaluations.compare(evaluation_id, evaluation_id)
        assert (correct.name, correct.verdict, correct.delta) == ("correct", "unchanged", 0)
    """

    model_config = ConfigDict(frozen=True)

    name: str
    verdict: Verdict
    delta: float | None = None
    better: tuple[Row, ...] = ()
    worse: tuple[Row, ...] = ()
    changed: tuple[Row, ...] = ()
    failed: tuple[Row, ...] = ()
    reason: str = ""


class _Pair(NamedTuple):
    """A row, and its score now and before: None where the row failed without it."""

    row: Row
    now: Score | None
    was: Score | None


def compare(rows: Iterable[Row], baseline: Iterable[Row]) -> tuple[ScoreComparison, ...]:
    """Compare rows with those of a baseline, score by score; return at least one comparison."""
    now = {(row.id, row.iteration): row for row in rows}
    before = {(row.id, row.iteration): row for row in baseline}
    common = [(row, before[key]) for key, row in now.items() if key in before]
    if not common:
        lacking = "the baseline has no rows" if not before else "no row is in both evaluations"
        return (_nothing(lacking if now else "the evaluation has no rows"),)
    names = dict.fromkeys(name for pair in common for row in pair for name in _scored(row))
    if not names:
        return (_nothing("no row has a score: see the rows' errors"),)
    return tuple(_compare(name, [pair for rows in common if (pair := _pair(name, *rows))]) for name in names)


def _nothing(reason: str) -> ScoreComparison:
    return ScoreComparison(name="", verdict="not_comparable", reason=reason)


def _scored(row: Row) -> dict[str, Score]:
    return {score.name: score for score in row.scores if score.value is not None}


def _pair(name: str, row: Row, before: Row) -> _Pair | None:
    now, was = _scored(row).get(name), _scored(before).get(name)
    counts = (now or row.has_failed) and (was or before.has_failed) and (now or was)
    return _Pair(row, now, was) if counts else None


def _compare(name: str, pairs: list[_Pair]) -> ScoreComparison:
    if not pairs:
        reason = "no row has it in both evaluations"
        return ScoreComparison(name=name, verdict="not_comparable", reason=reason)
    both = [(pair.row, pair.now, pair.was) for pair in pairs if pair.now and pair.was]
    if any(now.version != was.version for _, now, was in both):
        return ScoreComparison(name=name, verdict="not_comparable", reason="the evaluators' versions differ")
    if len({type(score.value) for pair in pairs for score in pair[1:] if score}) > 1:
        return ScoreComparison(name=name, verdict="not_comparable", reason="the scores are of different kinds")
    is_verdict = any(isinstance(score.value, bool) for pair in pairs for score in pair[1:] if score)
    moved = [(pair.row, change) for pair in pairs if (change := _change(pair, 0.0 if is_verdict else None)) is not None]
    failed = tuple(pair.row for pair in pairs if pair.now is None)
    delta = sum(change for _, change in moved) / len(moved) if moved else None
    more_failed = len(failed) > sum(pair.was is None for pair in pairs)
    return ScoreComparison(
        name=name,
        verdict="worse" if more_failed and not is_verdict else _verdict(delta),
        delta=delta,
        better=tuple(row for row, change in moved if change > _TOLERANCE),
        worse=tuple(row for row, change in moved if change < -_TOLERANCE),
        changed=tuple(row for row, now, was in both if isinstance(now.value, str) and now.value != was.value),
        failed=failed,
    )


def _change(pair: _Pair, failed: float | None) -> float | None:
    now = failed if pair.now is None else pair.now.number
    was = failed if pair.was is None else pair.was.number
    return None if now is None or was is None else now - was


def _verdict(delta: float | None) -> Verdict:
    if delta is None or abs(delta) <= _TOLERANCE:
        return "unchanged"
    return "better" if delta > 0 else "worse"
