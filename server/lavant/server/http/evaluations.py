"""An evaluation's events as dashboards know them: status, progress, row_complete, final, error."""

from collections.abc import Mapping, Sequence
from typing import Any

from lavant.contract.json_text import quote, to_json, to_line, to_object
from lavant.server.model import is_terminal
from lavant.v1.event_pb2 import Event, ProgressReported, RowFinished, Score
from lavant.v1.run_pb2 import Run, RunFinished, RunState

Named = Sequence[tuple[str, str]]

_STATUSES = {
    RunState.RUN_STATE_QUEUED: "queued",
    RunState.RUN_STATE_RUNNING: "running",
    RunState.RUN_STATE_INPUT_REQUIRED: "running",
    RunState.RUN_STATE_SUCCEEDED: "completed",
    RunState.RUN_STATE_CANCELLED: "cancelled",
}


def state(run: Run) -> Named:
    """Return what a stream begins with, whenever it is opened: the state of an evaluation that has not ended."""
    return () if is_terminal(run.state) else (("status", _status(run.state)),)


def render(event: Event) -> Named:
    """Return the names and the JSON of an event for a dashboard; empty for most events.

    `status` {"status": queued, running, completed, failed or cancelled, "state": the run's own};
    `progress` {"rows_complete", "rows_total", "label"}; `row_complete` {"row": {"id", "iteration", "score": the mean of
    its numbers and verdicts, "scores", "input", "output", "expected", "duration" in seconds, "metrics", "error"}};
    `final` {"result": {"state", "accuracy", "mean_scores", "rows_succeeded", "rows_failed", "score_counts",
    "error_counts", "output", "duration"}} of one that was completed or cancelled, `error` {"error", "result"} of
    one that was not; the contract's EvaluationSummary defines the sums. What is not known is left out.
    """
    match event.WhichOneof("payload"):
        case "run_started":
            plan = event.run_started.evaluation
            total = plan.row_count if event.run_started.HasField("evaluation") else None
            return (
                ("status", _status(RunState.RUN_STATE_RUNNING)),
                ("progress", to_object(rows_complete="0", rows_total=_count(total))),
            )
        case "run_state_changed":
            return (("status", _status(event.run_state_changed.state)),)
        case "progress_reported":
            return (("progress", _progress(event.progress_reported)),)
        case "row_finished":
            return (("row_complete", to_object(row=_row(event.row_finished))),)
        case "run_finished":
            return _ended(event.run_finished)
    return ()


def _ended(finished: RunFinished) -> Named:
    result = _result(finished)
    status = ("status", _status(finished.state))
    if finished.state in _STATUSES:
        return (status, ("final", to_object(result=result)))
    error = to_json(finished.error) if finished.HasField("error") else '{"message": "it did not end well"}'
    return (status, ("error", to_object(error=error, result=result)))


def _status(state: "RunState.ValueType") -> str:
    name = RunState.Name(state) if state in RunState.values() else "RUN_STATE_UNSPECIFIED"
    return to_object(status=quote(_STATUSES.get(state, "failed")), state=quote(_word(name, "RUN_STATE_")))


def _progress(progress: ProgressReported) -> str:
    return to_object(
        rows_complete=_count(progress.completed if progress.HasField("completed") else None),
        rows_total=_count(progress.total if progress.HasField("total") else None),
        label=quote(progress.label) if progress.label else None,
    )


def _row(row: RowFinished) -> str:
    numbers = [float(_value(score)) for score in row.scores if isinstance(_value(score), float | bool)]
    return to_object(
        id=quote(row.row_id),
        iteration=str(row.iteration),
        run_id=quote(row.subject_run_id) if row.subject_run_id else None,
        score=_number(sum(numbers) / len(numbers)) if numbers else None,
        scores="[" + ", ".join(map(_score, row.scores)) + "]",
        input=_json(row.input_json),
        output=_json(row.output_json),
        expected=_json(row.expected_output_json),
        duration=_number(row.duration.ToNanoseconds() / 1e9) if row.HasField("duration") else None,
        metrics=to_object(**{name: _number(row.metrics[name]) for name in row.metrics}) if row.metrics else None,
        error=to_json(row.error) if row.HasField("error") else None,
    )


def _score(score: Score) -> str:
    return to_object(
        name=quote(score.name),
        value=_written(_value(score)),
        explanation=quote(score.explanation) if score.explanation else None,
        evaluator=quote(score.evaluator.name) if score.evaluator.name else None,
        version=quote(score.evaluator.version) if score.evaluator.version else None,
        error=to_json(score.error) if score.HasField("error") else None,
    )


def _written(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    return None if value is None else quote(value)


def _result(finished: RunFinished) -> str:
    means = finished.evaluation.mean_scores
    return to_object(
        state=quote(_word(RunState.Name(finished.state), "RUN_STATE_")),
        accuracy=_number(finished.evaluation.accuracy) if finished.evaluation.HasField("accuracy") else None,
        mean_scores=to_object(**{name: _number(means[name]) for name in means}),
        rows_succeeded=str(finished.evaluation.rows_succeeded),
        rows_failed=str(finished.evaluation.rows_failed),
        score_counts=_counts(finished.evaluation.score_counts),
        error_counts=_counts(finished.evaluation.error_counts),
        output=_json(finished.output_json),
        duration=_number(finished.duration.ToNanoseconds() / 1e9) if finished.HasField("duration") else None,
    )


def _value(score: Score) -> Any:
    kind = score.WhichOneof("value")
    return None if kind is None else getattr(score, kind)


def _count(value: int | None) -> str | None:
    return None if value is None else str(value)


def _counts(counts: Mapping[str, int]) -> str | None:
    return to_object(**{name: str(counts[name]) for name in counts}) if counts else None


def _number(value: float) -> str:
    return repr(value) if value == value and abs(value) != float("inf") else "null"


def _json(text: str) -> str | None:
    return to_line(text) or None


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
