"""How an evaluation compares with an earlier one. Pure."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lavant.client._rows import Row, Score

Verdict = Literal["better", "worse", "unchanged", "not_comparable"]
_TOLERANCE = 1e-9


class ScoreComparison(BaseModel):
    """How one score moved against a baseline: its mean, and the rows that came out otherwise.

    Rows are the same if their ids and iterations are; only those that both have a score for count. Scores of
    different versions of an evaluator are not comparable: then `delta` is None. `changed` are rows with another class.

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


def compare(rows: Iterable[Row], baseline: Iterable[Row]) -> tuple[ScoreComparison, ...]:
    """Compare rows with those of a baseline, score by score."""
    before = {(row.id, row.iteration): {score.name: score for score in row.scores} for row in baseline}
    pairs: dict[str, list[tuple[Row, Score, Score]]] = {}
    for row in rows:
        scores = before.get((row.id, row.iteration), {})
        for score in row.scores:
            was = scores.get(score.name)
            if was is not None and score.value is not None and was.value is not None:
                pairs.setdefault(score.name, []).append((row, score, was))
    return tuple(_compare(name, found) for name, found in pairs.items())


def _compare(name: str, pairs: list[tuple[Row, Score, Score]]) -> ScoreComparison:
    if any(now.version != was.version or type(now.value) is not type(was.value) for _, now, was in pairs):
        return ScoreComparison(name=name, verdict="not_comparable")
    moved = [
        (row, now.number - was.number) for row, now, was in pairs if now.number is not None and was.number is not None
    ]
    delta = sum(change for _, change in moved) / len(moved) if moved else None
    return ScoreComparison(
        name=name,
        verdict="unchanged" if delta is None or abs(delta) <= _TOLERANCE else "better" if delta > 0 else "worse",
        delta=delta,
        better=tuple(row for row, change in moved if change > _TOLERANCE),
        worse=tuple(row for row, change in moved if change < -_TOLERANCE),
        changed=tuple(row for row, now, was in pairs if isinstance(now.value, str) and now.value != was.value),
    )
