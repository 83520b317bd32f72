"""Evaluations as people read them: rows, scores, what they add up to, and what a stream of them tells. Pure.

`if event.type == "row_complete":` tells a type checker that the event has a `row`.

Example:
    async for event in client.evaluations.stream(evaluation_id):
        match event.type:
            case "row_complete":
                print(event.row.id, event.row.score)
            case "final" | "error":
                print(event.result.mean_scores)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, Self

from lavant.client._comparison import ScoreComparison
from lavant.client._events import Event
from lavant.client._frozen import Frozen
from lavant.client._models import ErrorInfo, RunResult
from lavant.client._rows import Row, summary_of
from lavant.client._states import RunState
from lavant.client._table import MAX_ROWS, Shown, Table

# The events of a run that tell of its evaluation.
EVENT_TYPES = ("run_started", "run_state_changed", "progress_reported", "row_finished", "run_finished")
EvaluationStatus = Literal["queued", "running", "completed", "failed", "cancelled"]


class Evaluation(Shown, Frozen):
    """An evaluation: what its rows add up to. `rows` are those that were read.

    `accuracy` is the part that passed of all verdicts of all rows, and None without any. `mean_scores` has the mean of
    each number, and of each verdict as 0 and 1. A row whose task or one of whose evaluators failed counts as not passed
    in both; `score_counts` and `error_counts` say, by the score's name, how many rows have a number or a verdict and
    how many failed rows have none. `comparison` is that with the baseline which it was run with, if it was; it is
    never empty then.

    Example:
        evaluation = await client.evaluations.wait(evaluation_id)
        assert (evaluation.accuracy, evaluation.mean_scores) == (0.5, {"correct": 0.5})
    """

    id: str
    state: RunState
    rows_succeeded: int = 0
    rows_failed: int = 0
    accuracy: float | None = None
    mean_scores: Mapping[str, float] = {}
    score_counts: Mapping[str, int] = {}
    error_counts: Mapping[str, int] = {}
    output: Any = None
    error: ErrorInfo | None = None
    duration: timedelta | None = None
    rows: tuple[Row, ...] = ()
    comparison: tuple[ScoreComparison, ...] = ()

    @classmethod
    def from_result(cls, result: RunResult, rows: Iterable[Row] = ()) -> Self:
        """Make it of a run's result, and of its rows; what the run does not add up is added up from these."""
        read = tuple(rows)
        summary = result.evaluation or summary_of(read)
        return cls(
            id=result.run_id,
            state=result.state,
            output=result.output,
            error=result.error,
            duration=result.duration,
            rows=read,
            **dict(summary),
        )

    def __repr__(self) -> str:
        sums = f"accuracy={self.accuracy}, mean_scores={dict(self.mean_scores)}"
        counts = f"rows_succeeded={self.rows_succeeded}, rows_failed={self.rows_failed}"
        return f"Evaluation(id={self.id!r}, state={self.state.value!r}, {counts}, {sums}, rows=<{len(self.rows)}>)"

    def _table(self) -> Table:
        means = " ".join(f"{name}={mean:.4g}" for name, mean in self.mean_scores.items())
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.4g}"
        failed = f", {self.rows_failed:,} failed" if self.rows_failed else ""
        scored = f"{self.rows_succeeded:,} rows scored{failed}"
        heading = f"{self.id} {self.state.value}: {scored}{accuracy} {means}".rstrip()
        names = list(dict.fromkeys(score.name for row in self.rows[:MAX_ROWS] for score in row.scores))
        rows = ([row.id, row.iteration, *_scores(row, names), row.error and row.error.message] for row in self.rows)
        return Table.of(heading, ["row", "iteration", *names, "error"], rows, len(self.rows))


class StatusEvent(Frozen):
    """Where an evaluation stands.

    Example:
        first = await anext(client.evaluations.stream(evaluation_id))
        assert (first.type, first.status) == ("status", "running")
    """

    type: Literal["status"] = "status"
    status: EvaluationStatus
    state: RunState


class ProgressEvent(Frozen):
    """How many rows are done. What is not known is None.

    Example:
        events = [event async for event in client.evaluations.stream(evaluation_id)]
        progress = [event.rows_complete for event in events if event.type == "progress"]
        assert progress == [0, 1, 2]
    """

    type: Literal["progress"] = "progress"
    rows_complete: int | None
    rows_total: int | None
    label: str = ""


class RowCompleteEvent(Frozen):
    """A row was scored.

    Example:
        events = [event async for event in client.evaluations.stream(evaluation_id)]
        assert [event.row.score for event in events if event.type == "row_complete"] == [1.0, 0.0]
    """

    type: Literal["row_complete"] = "row_complete"
    row: Row


class FinalEvent(Frozen):
    """The evaluation was completed, or cancelled.

    Example:
        *_, last = [event async for event in client.evaluations.stream(evaluation_id)]
        assert (last.type, last.result.accuracy) == ("final", 0.5)
    """

    type: Literal["final"] = "final"
    result: Evaluation


class ErrorEvent(Frozen):
    """The evaluation failed, timed out or was abandoned; `result` has what was scored before.

    Example:
        *_, last = [event async for event in client.evaluations.stream(failed_id)]
        assert (last.type, last.error.message) == ("error", "no such city")
    """

    type: Literal["error"] = "error"
    error: ErrorInfo
    result: Evaluation


EvaluationEvent = StatusEvent | ProgressEvent | RowCompleteEvent | FinalEvent | ErrorEvent

_STATUSES: dict[RunState, EvaluationStatus] = {
    RunState.QUEUED: "queued",
    RunState.RUNNING: "running",
    RunState.INPUT_REQUIRED: "running",
    RunState.SUCCEEDED: "completed",
    RunState.CANCELLED: "cancelled",
}


class EvaluationProjection:
    """Makes of a run's events what an evaluation tells. Keeps its rows."""

    def __init__(self, evaluation_id: str) -> None:
        self.rows: list[Row] = []
        self._id = evaluation_id

    def add(self, event: Event) -> Iterator[EvaluationEvent]:
        """Take an event; give what it tells, which of most is nothing."""
        match event.type:
            case "run_started":
                plan = event.data.evaluation
                yield _status(RunState.RUNNING)
                yield ProgressEvent(rows_complete=0, rows_total=plan.row_count if plan else None)
            case "run_state_changed":
                yield _status(event.data.state)
            case "progress_reported":
                yield ProgressEvent(
                    rows_complete=event.data.completed,
                    rows_total=event.data.total,
                    label=event.data.label,
                )
            case "row_finished":
                self.rows.append(Row.from_proto(event.proto.row_finished))
                yield RowCompleteEvent(row=self.rows[-1])
            case "run_finished":
                result = Evaluation.from_result(RunResult.from_proto(self._id, event.proto.run_finished), self.rows)
                yield _status(result.state)
                if result.state in _STATUSES:
                    yield FinalEvent(result=result)
                else:
                    error = result.error or ErrorInfo(message=f"the evaluation {result.state.value}")
                    yield ErrorEvent(error=error, result=result)


def _scores(row: Row, names: Sequence[str]) -> list[object]:
    scores = {score.name: "failed" if score.error else score.value for score in row.scores}
    return [scores.get(name) for name in names]


def _status(state: RunState) -> StatusEvent:
    return StatusEvent(status=_STATUSES.get(state, "failed"), state=state)
