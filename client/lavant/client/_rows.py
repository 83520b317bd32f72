"""Rows of evaluations, their scores, and what they add up to. Pure."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Self

from lavant.client import _json
from lavant.client._frozen import Frozen
from lavant.client._models import ErrorInfo, EvaluationSummary, to_timedelta
from lavant.contract.summary import Sums
from lavant.contract.text import to_text
from lavant.v1 import event_pb2


class Score(Frozen):
    """What one evaluator said of a row or a run: a number, a verdict, a class; None if it failed, with its `error`.

    `evaluator` is who said it; `version` and `config`, its settings, tell which scores it may be compared with.

    Example:
        evaluation = await client.evaluations.wait(evaluation_id)
        score = evaluation.rows[0].scores[0]
        assert (score.name, score.value) == ("correct", True)
    """

    name: str
    value: float | bool | str | None
    explanation: str = ""
    evaluator: str = ""
    version: str = ""
    config: Any = None
    error: ErrorInfo | None = None

    @classmethod
    def from_proto(cls, proto: event_pb2.Score) -> Self:
        """Read it from the contract's Score."""
        kind = proto.WhichOneof("value")
        return cls(
            name=proto.name,
            value=None if kind is None else getattr(proto, kind),
            explanation=proto.explanation,
            evaluator=proto.evaluator.name,
            version=proto.evaluator.version,
            config=_json.decode(proto.evaluator.config_json),
            error=ErrorInfo.from_proto(proto.error) if proto.HasField("error") else None,
        )

    @property
    def number(self) -> float | None:
        """The value as a number, a verdict as 1 or 0; None for a class and a failure."""
        return None if self.value is None or isinstance(self.value, str) else float(self.value)

    def to_proto(self) -> event_pb2.Score:
        """Write it as the contract's Score."""
        proto = event_pb2.Score(name=to_text(self.name), explanation=to_text(self.explanation))
        proto.evaluator.name = to_text(self.evaluator)
        proto.evaluator.version = to_text(self.version)
        proto.evaluator.config_json = _json.encode_optional(self.config)
        if isinstance(self.value, bool):
            proto.passed = self.value
        elif isinstance(self.value, str):
            proto.label = to_text(self.value)
        elif self.value is not None:
            proto.number = self.value
        if self.error is not None:
            proto.error.CopyFrom(self.error.to_proto())
        return proto


class Row(Frozen):
    """A row of an evaluation: what a case gave in one iteration, and what the evaluators said of it.

    Example:
        [right, wrong] = (await client.evaluations.wait(evaluation_id)).rows
        assert (right.id, right.score, wrong.score) == ("case 1", 1.0, 0.0)
    """

    id: str
    iteration: int
    run_id: str = ""
    scores: tuple[Score, ...] = ()
    error: ErrorInfo | None = None
    input: Any = None
    output: Any = None
    expected: Any = None
    duration: timedelta | None = None
    metrics: Mapping[str, float] = {}

    @classmethod
    def from_proto(cls, proto: event_pb2.RowFinished) -> Self:
        """Read it from the contract's RowFinished."""
        return cls(
            id=proto.row_id,
            iteration=proto.iteration,
            run_id=proto.subject_run_id,
            scores=tuple(map(Score.from_proto, proto.scores)),
            error=ErrorInfo.from_proto(proto.error) if proto.HasField("error") else None,
            input=_json.decode(proto.input_json),
            output=_json.decode(proto.output_json),
            expected=_json.decode(proto.expected_output_json),
            duration=to_timedelta(proto.duration) if proto.HasField("duration") else None,
            metrics=dict(proto.metrics),
        )

    @property
    def score(self) -> float | None:
        """The mean of its numbers and verdicts; None if there are none."""
        return _mean(score.number for score in self.scores)

    @property
    def has_failed(self) -> bool:
        """Whether its task or one of its evaluators failed."""
        return self.error is not None or any(score.error for score in self.scores)


def summary_of(rows: Iterable[Row]) -> EvaluationSummary:
    """Add up rows, as `lavant.contract.summary` defines."""
    sums = Sums()
    for row in rows:
        sums.add(failed=row.has_failed, values=((score.name, score.value) for score in row.scores))
    return EvaluationSummary.from_proto(sums.summary())


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
