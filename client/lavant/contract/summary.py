"""Totals of an evaluation's rows: the same arithmetic for evaluations of clients and rules of servers.

A row has failed if its task or one of its evaluators failed. A failed row passes nothing: for every pass/fail score
that the evaluation has and the row has not, it counts as not passed. Numbers have no such worst value: their mean is
over the rows that have one, and `error_counts` is the number of failed rows without one.
"""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from math import isfinite

from lavant.v1.event_pb2 import RowFinished, Score
from lavant.v1.run_pb2 import EvaluationSummary

MAX_SCORE_NAMES = 1_000


@dataclass(slots=True)
class _Score:
    total: float = 0.0
    rows: int = 0
    failed_rows: int = 0
    verdicts: int = 0
    passed: int = 0


@dataclass(slots=True)
class Sums:
    """Totals of the scores of the first 1,000 names."""

    _succeeded: int = 0
    _failed: int = 0
    _scores: dict[str, _Score] = field(default_factory=dict)

    def copy(self) -> "Sums":
        """Return an independent copy."""
        return Sums(self._succeeded, self._failed, {name: copy(score) for name, score in self._scores.items()})

    def add(self, *, failed: bool, values: Iterable[tuple[str, float | bool | str | None]]) -> None:
        """Add a row: the values of its scores by name, None for a failed evaluator."""
        if failed:
            self._failed += 1
        else:
            self._succeeded += 1
        for name, value in dict(values).items():
            score = self._scores.get(name)
            if score is None:
                if isinstance(value, str) or len(self._scores) >= MAX_SCORE_NAMES:
                    continue
                score = self._scores[name] = _Score()
            if value is None or isinstance(value, str) or not isfinite(value):
                continue
            score.rows += 1
            score.failed_rows += failed
            score.total += value
            if isinstance(value, bool):
                score.verdicts += 1
                score.passed += value

    def add_row(self, row: RowFinished) -> None:
        """Add the contract's row."""
        failed = row.HasField("error") or any(score.HasField("error") for score in row.scores)
        self.add(failed=failed, values=((score.name, _value(score)) for score in row.scores))

    def summary(self) -> EvaluationSummary:
        """Return the totals."""
        made = EvaluationSummary(rows_succeeded=self._succeeded, rows_failed=self._failed)
        verdicts = passed = 0
        for name, score in self._scores.items():
            errors = self._failed - score.failed_rows
            if errors:
                made.error_counts[name] = errors
            if score.rows:
                made.score_counts[name] = score.rows
                not_passed = errors if score.verdicts else 0
                if isfinite(score.total):
                    made.mean_scores[name] = score.total / (score.rows + not_passed)
                verdicts += score.verdicts + not_passed
                passed += score.passed
        if verdicts:
            made.accuracy = passed / verdicts
        elif self._failed and not self._succeeded:
            made.accuracy = 0.0
        return made


def _value(score: Score) -> float | bool | str | None:
    kind = score.WhichOneof("value")
    return None if kind is None else getattr(score, kind)
