"""Evaluations: their rows and totals, their events, and comparisons between them.

`if event.type == "row_complete":` narrows `event` for type checkers to one with a `row`.

Example:
    async for event in client.evaluations.stream(evaluation_id):
        match event.type:
            case "row_complete":
                print(event.row.id, event.row.score)
            case "final" | "error":
                print(event.result.mean_scores)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal, NamedTuple, Self

from lavant.client._reading.table import MAX_ROWS, Shown, Table
from lavant.client.events import Event
from lavant.client.models import ErrorInfo, EvaluationSummary, Frozen, Run, RunResult
from lavant.client.scores import Score
from lavant.client.states import RunState
from lavant.contract.summary import Sums
from lavant.v1 import event_pb2

# Types of a run's events that an evaluation's events are derived from.
EVENT_TYPES = ("run_started", "run_state_changed", "progress_reported", "row_finished", "run_finished")
EvaluationStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
ComparisonVerdict = Literal["better", "worse", "unchanged", "not_comparable"]
_TOLERANCE = 1e-9


class Row(Frozen):
    """Row of an evaluation: the result of a case in one iteration, with its scores.

    Example:
        [right, wrong] = (await client.evaluations.wait(evaluation_id)).rows
        assert (right.id, right.score, wrong.score) == ("case 1", 1.0, 0.0)
    """

    _contract: ClassVar = event_pb2.RowFinished
    _contract_names: ClassVar = {"id": "row_id", "run_id": "subject_run_id", "expected": "expected_output"}

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

    @property
    def score(self) -> float | None:
        """Mean of its numbers and verdicts; None without any."""
        return _mean(score.number for score in self.scores)

    @property
    def has_failed(self) -> bool:
        """Whether its task or one of its evaluators failed."""
        return self.error is not None or any(score.error for score in self.scores)


class ScoreComparison(Frozen):
    """Comparison of one score with a baseline: the change of its mean, and the rows that changed.

    Rows correspond if their ids and iterations are equal. A row counts if it has the score in one evaluation, and in
    the other has it or failed. In a failed row a verdict counts as 0 and a number as missing; but if more rows failed
    than before, the verdict on a number is "worse". `failed` are the rows that failed and had the score in the
    baseline. `changed` are rows whose class changed. For scores that are not comparable, such as those of different
    versions of an evaluator, `delta` is None and `reason` says why; the `name` is empty if no rows can be compared. A
    higher value is better unless the scores' `higher_is_better` is False.

    Example:
        [correct] = await client.evaluations.compare(evaluation_id, evaluation_id)
        assert (correct.name, correct.verdict, correct.delta) == ("correct", "unchanged", 0)
    """

    name: str
    verdict: ComparisonVerdict
    delta: float | None = None
    better: tuple[Row, ...] = ()
    worse: tuple[Row, ...] = ()
    changed: tuple[Row, ...] = ()
    failed: tuple[Row, ...] = ()
    reason: str = ""


class Evaluation(Shown, Frozen):
    """An evaluation with the totals of its rows.

    `accuracy` is the part of all verdicts that passed, None without verdicts. `mean_scores` has the mean per score,
    with verdicts as 0 and 1. A failed row counts as not passed in both. By name of the score, `score_counts` is the
    number of rows with a number or a verdict, `error_counts` the number of failed rows without one. `comparison` is
    set, and never empty, if the evaluation was run with a baseline.

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
        """Return the evaluation of a run's result. Totals that it lacks are those of `rows`."""
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
    """State of an evaluation.

    Example:
        first = await anext(client.evaluations.stream(evaluation_id))
        assert (first.type, first.status) == ("status", "running")
    """

    type: Literal["status"] = "status"
    status: EvaluationStatus
    state: RunState


class ProgressEvent(Frozen):
    """Number of rows that are done, and in total. Numbers that are not known are None.

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
    """The evaluation has ended: completed or cancelled.

    Example:
        *_, last = [event async for event in client.evaluations.stream(evaluation_id)]
        assert (last.type, last.result.accuracy) == ("final", 0.5)
    """

    type: Literal["final"] = "final"
    result: Evaluation


class ErrorEvent(Frozen):
    """The evaluation has failed, timed out or was abandoned. `result` has the rows scored before.

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
    """Derives an evaluation's events from its run's events. Keeps its rows."""

    def __init__(self, evaluation_id: str) -> None:
        self.rows: list[Row] = []
        self._id = evaluation_id

    def add(self, event: Event) -> Iterator[EvaluationEvent]:
        """Yield the events that an event of the run stands for, which is none for most."""
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
                result = Evaluation.from_result(
                    RunResult.from_proto(event.proto.run_finished, run_id=self._id), self.rows
                )
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


def summary_of(rows: Iterable[Row]) -> EvaluationSummary:
    """Return the totals of rows, as `lavant.contract.summary` defines them."""
    sums = Sums()
    for row in rows:
        sums.add(failed=row.has_failed, values=((score.name, score.value) for score in row.scores))
    return EvaluationSummary.from_proto(sums.summary())


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


class _Pair(NamedTuple):
    """A row with its score now and before; None where the row failed without it."""

    row: Row
    now: Score | None
    was: Score | None


def compare(rows: Iterable[Row], baseline: Iterable[Row]) -> tuple[ScoreComparison, ...]:
    """Compare rows with those of a baseline. Return at least one comparison."""
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
    said = [score.higher_is_better for pair in pairs for score in pair[1:] if score]
    sign = -1 if False in said and True not in said else 1
    gains = [(row, sign * change) for row, change in moved]
    more_failed = len(failed) > sum(pair.was is None for pair in pairs)
    return ScoreComparison(
        name=name,
        verdict="worse" if more_failed and not is_verdict else _verdict(delta and sign * delta),
        delta=delta,
        better=tuple(row for row, gain in gains if gain > _TOLERANCE),
        worse=tuple(row for row, gain in gains if gain < -_TOLERANCE),
        changed=tuple(row for row, now, was in both if isinstance(now.value, str) and now.value != was.value),
        failed=failed,
    )


def _change(pair: _Pair, failed: float | None) -> float | None:
    now = failed if pair.now is None else pair.now.number
    was = failed if pair.was is None else pair.was.number
    return None if now is None or was is None else now - was


def _verdict(gain: float | None) -> ComparisonVerdict:
    if gain is None or abs(gain) <= _TOLERANCE:
        return "unchanged"
    return "better" if gain > 0 else "worse"


class EvaluatedRun(Frozen):
    """A run that a worker has evaluated. With an `error` it could not be evaluated and is tried again later.

    `attempt` counts from 1. Failures of single evaluators are `scores` with an error.

    Example:
        def show(evaluated: EvaluatedRun) -> None:
            print(evaluated.run.name, {score.name: score.value for score in evaluated.scores}, evaluated.error)

        await client.rules.create("quality")
        await client.rules.backfill("quality")
        await client.evaluations.process_stream(
            "quality", evaluators=[EqualsExpected()], on_evaluated=show, until_caught_up=True
        )
    """

    run: Run
    attempt: int
    scores: tuple[Score, ...] = ()
    error: ErrorInfo | None = None
    duration: timedelta


class ProcessedSamples(Frozen):
    """Numbers of a worker's samples by outcome.

    `evaluated` have scores, `failed` were recorded as failed after their last attempt, `lost` were leased to other
    workers. `returned` counts attempts that are to be repeated. If the work ended while the evaluators of samples were
    unavailable, `waiting` is the number of these samples and `error` the reason.

    Example:
        await client.rules.create("quality")
        done = await client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
        assert done == ProcessedSamples(evaluated=0, failed=0, lost=0)
    """

    evaluated: int = 0
    failed: int = 0
    lost: int = 0
    returned: int = 0
    waiting: int = 0
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StubCall:
    """The call of a tool that a stub answers; a stub gets it in a parameter that is annotated with this class.

    `case` is the dataset's own, `iteration` counts from 1, `index` counts the calls of this tool in that row from 0.

    Example:
        def search_web(q: str, call: StubCall) -> str:
            return f"{q}: {call.case.metadata}" if call.index == 0 else "nothing more"


        assert search_web("Oslo", StubCall(case=None, iteration=1, index=1)) == "nothing more"
    """

    case: Any
    iteration: int
    index: int
