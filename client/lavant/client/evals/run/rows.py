"""Rows to publish, from the reports of pydantic-evals."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from pydantic_evals.evaluators import EvaluationResult
from pydantic_evals.evaluators.evaluator import EvaluatorFailure
from pydantic_evals.reporting import ReportCase, ReportCaseFailure

from lavant.client._async.producer import AsyncRunProducer
from lavant.client._publishing.payloads import MAX_ERROR_MESSAGE
from lavant.client._sync.producer import RunProducer
from lavant.client._wire.arguments import duration
from lavant.client.evals.run.plan import PlannedRow, value_text
from lavant.client.models import ErrorInfo, Usage
from lavant.client.scores import Score
from lavant.contract.text import to_text
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import RowFinished

Report = ReportCase[Any, Any, Any] | ReportCaseFailure[Any, Any, Any]
_MOST_EXPLAINED = 256 << 10


def row_of(planned: PlannedRow, report: Report) -> RowFinished:
    """Return a row with its scores and an error for each evaluator that failed; or with the error of its task.

    Metrics that are not finite numbers are left out, and so are the last explanations if all are too long for an event.
    """
    row_id, iteration = planned.key
    row = RowFinished(
        row_id=row_id,
        iteration=iteration,
        input_json=planned.input_json,
        expected_output_json=planned.expected_json,
    )
    if isinstance(report, ReportCaseFailure):
        kind, colon, message = report.error_message.partition(": ")
        row.error.CopyFrom(_error(message if colon else kind, kind if colon else "").to_proto())
        return row
    row.output_json = value_text(report.output)
    row.duration.CopyFrom(duration(max(0.0, report.task_duration)))
    row.metrics.update(_metrics(report))
    for result in (*report.scores.values(), *report.assertions.values(), *report.labels.values()):
        row.scores.append(_score(result, planned.directions.get(result.source.name)))
    row.scores.extend(map(_failure, report.evaluator_failures))
    left = _MOST_EXPLAINED
    for score in row.scores:
        left -= score.ByteSize()
        if left < 0:
            score.ClearField("explanation")
    return row


def _score(result: EvaluationResult[Any], higher_is_better: bool | None) -> event_pb2.Score:
    """Return a score; with an error if its value is not a finite number, such as NaN."""
    value, error = result.value, None
    if isinstance(value, str):
        value = _short(value)
    elif not isinstance(value, bool):
        number = _finite(value)
        if number is None:
            error = _error(f"{value!r:.100} is not a finite number", "ValueError")
        value = number
    return Score(
        name=result.name,
        value=value,
        explanation=_short(result.reason or ""),
        evaluator=result.source.name,
        version=result.evaluator_version or "",
        higher_is_better=higher_is_better,
        error=error,
    ).to_proto()


def _failure(failure: EvaluatorFailure) -> event_pb2.Score:
    return Score(
        name=failure.name,
        value=None,
        evaluator=failure.source.name,
        version=failure.evaluator_version or "",
        error=_error(failure.error_message.removeprefix(f"{failure.error_type}: "), failure.error_type or ""),
    ).to_proto()


def _error(message: str, kind: str) -> ErrorInfo:
    return ErrorInfo(message=_short(message), type=kind)


def _metrics(report: ReportCase[Any, Any, Any]) -> Iterator[tuple[str, float]]:
    for name, value in report.metrics.items():
        if (number := _finite(value)) is not None:
            yield to_text(name), number


def linked(row: RowFinished, runs: Sequence[object]) -> RowFinished:
    """Link a row to the first of the runs that recorded its task, and add the usage of all to its metrics."""
    recorded = [run for run in runs if isinstance(run, AsyncRunProducer | RunProducer)]
    if not recorded:
        return row
    row.subject_run_id = recorded[0].id
    used = sum((run.usage for run in recorded if isinstance(run.usage, Usage)), start=Usage())
    for name in ("input_tokens", "output_tokens", "requests", "cost_usd"):
        if (value := getattr(used, name)) and name not in row.metrics:
            row.metrics[name] = value
    return row


def drop_non_finite(report: Report) -> None:
    """Remove numbers that are not finite from a report, as pydantic-evals fails to average them at its end."""
    if isinstance(report, ReportCase):
        for name in [name for name, result in report.scores.items() if _finite(result.value) is None]:
            del report.scores[name]
        for name in [name for name, value in report.metrics.items() if _finite(value) is None]:
            del report.metrics[name]


def _finite(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _short(text: str) -> str:
    return to_text(text)[:MAX_ERROR_MESSAGE]
