"""What the rows of a segment add up to."""

from math import isfinite

from lavant.v1.event_pb2 import RowFinished
from lavant.v1.run_pb2 import EvaluationSummary

_MOST_NAMES = 1_000


class Sums:
    """Sums of scores by their names, of the first 1,000 names."""

    def __init__(self) -> None:
        self._succeeded = self._failed = self._passed = self._verdicts = 0
        self._scores: dict[str, tuple[float, int]] = {}

    def copy(self) -> "Sums":
        """Sums that go their own way from here."""
        other = Sums()
        other.__dict__.update(self.__dict__)
        other._scores = self._scores.copy()
        return other

    def add(self, row: RowFinished) -> None:
        """Add a row."""
        if row.HasField("error") or any(score.HasField("error") for score in row.scores):
            self._failed += 1
        else:
            self._succeeded += 1
        for score in row.scores:
            value = score.WhichOneof("value")
            if value == "passed":
                self._verdicts += 1
                self._passed += score.passed
                self._add(score.name, float(score.passed))
            elif value == "number":
                self._add(score.name, score.number)

    def summary(self) -> EvaluationSummary:
        """The sums as a run's end tells them."""
        means = {name: total / count for name, (total, count) in self._scores.items() if isfinite(total)}
        accuracy = self._passed / self._verdicts if self._verdicts else None
        return EvaluationSummary(
            rows_succeeded=self._succeeded, rows_failed=self._failed, mean_scores=means, accuracy=accuracy
        )

    def _add(self, name: str, value: float) -> None:
        if name in self._scores or len(self._scores) < _MOST_NAMES:
            total, count = self._scores.get(name, (0.0, 0))
            self._scores[name] = (total + value, count + 1)
