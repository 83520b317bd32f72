"""From what pydantic-evals reports of a case to the row that is published. Pure."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from pydantic_evals.evaluators import EvaluationResult
from pydantic_evals.evaluators.evaluator import EvaluatorFailure
from pydantic_evals.reporting import ReportCase, ReportCaseFailure

from lavant.client import _json
from lavant.client._arguments import duration
from lavant.client._models import ErrorInfo
from lavant.client._payloads import MAX_ERROR_MESSAGE
from lavant.client._rows import Score
from lavant.client.integrations._evaluation_plan import PlannedRow, value_text
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import RowFinished

Report = ReportCase[Any, Any, Any] | ReportCaseFailure[Any, Any, Any]
_MOST_EXPLAINED = 256 << 10


def row_of(planned: PlannedRow, report: Report) -> RowFinished:
    """Return a row: with its scores, an error for each evaluator that failed, or the error of its task.

    Metrics that are no finite numbers are left out, and the last explanations where all are too long for an event.
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
    row.scores.extend(map(_score, (*report.scores.values(), *report.assertions.values(), *report.labels.values())))
    row.scores.extend(map(_failure, report.evaluator_failures))
    left = _MOST_EXPLAINED
    for score in row.scores:
        left -= score.ByteSize()
        if left < 0:
            score.ClearField("explanation")
    return row


def _score(result: EvaluationResult[Any]) -> event_pb2.Score:
    value = result.value if isinstance(result.value, bool | str) else float(result.value)
    return Score(
        name=result.name,
        value=_short(value) if isinstance(value, str) else value,
        explanation=_short(result.reason or ""),
        evaluator=result.source.name,
        version=result.evaluator_version or "",
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
    return ((_json.valid_text(name), float(value)) for name, value in report.metrics.items() if isfinite(value))


def _short(text: str) -> str:
    return _json.valid_text(text)[:MAX_ERROR_MESSAGE]
