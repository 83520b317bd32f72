"""Exports of OpenTelemetry: what is recorded of a request, and what of it is refused."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.server.auth.principal import Principal, Scope
from lavant.server.errors import ServiceError
from lavant.server.otlp.received import ReceivedSpan, received_logs, received_spans
from lavant.server.otlp.traces import Traces
from lavant.server.scores.recorder import Recorder
from lavant.server.slices import in_slices
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import ScoreRecorded

_COLLECTOR = "opentelemetry.proto.collector"
_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8
# A trace that waits for an agent has no run, and a span that was sent again with another score keeps the first one.
_SCORE_LEFT = {ErrorReason.ERROR_REASON_RUN_NOT_FOUND, ErrorReason.ERROR_REASON_INVALID_FIELD}
_MOST_REASONS = 5  # that one response names


class Export(NamedTuple):
    """A method of OTLP: its service over gRPC, its path over HTTP, its request, and what answers it."""

    service: str
    path: str
    request_type: type[Message]
    answer: Callable[[Any, Principal], Awaitable[Message]]


class Exports:
    """The methods of the OTLP services. Whatever is not refused is durable when a call returns."""

    def __init__(self, traces: Traces, recorder: Recorder) -> None:
        self._traces = traces
        self._recorder = recorder

    def methods(self) -> list[Export]:
        """Return the methods."""
        return [
            Export(f"{_COLLECTOR}.trace.v1.TraceService", "/v1/traces", ExportTraceServiceRequest, self.export_traces),
            Export(f"{_COLLECTOR}.logs.v1.LogsService", "/v1/logs", ExportLogsServiceRequest, self.export_logs),
            Export(
                f"{_COLLECTOR}.metrics.v1.MetricsService",
                "/v1/metrics",
                ExportMetricsServiceRequest,
                self.export_metrics,
            ),
        ]

    async def export_traces(
        self, request: ExportTraceServiceRequest, principal: Principal
    ) -> ExportTraceServiceResponse:
        """Record the spans of a request, once each; those that cannot be recorded are refused, with the reasons."""
        response = ExportTraceServiceResponse()
        reasons: list[str] = []

        def accepted() -> Iterator[ReceivedSpan]:
            for received in received_spans(request):
                if (reason := _refusal(received)) is None:
                    yield received
                else:
                    reasons.append(f"span {received.id[:32] or '(no ID)'}: {reason}")

        await self._record(principal, await in_slices(accepted()))
        if reasons:
            response.partial_success.rejected_spans = len(reasons)
            response.partial_success.error_message = _summary(reasons)
        return response

    async def export_logs(self, request: ExportLogsServiceRequest, principal: Principal) -> ExportLogsServiceResponse:
        """Record the log records of a request that are about agents, once each; all others are refused."""
        response = ExportLogsServiceResponse()
        reasons: list[str] = []

        def accepted() -> Iterator[ReceivedSpan]:
            for received in received_logs(request):
                reason = "not about an agent, or about none that is named" if received is None else _refusal(received)
                if received is not None and reason is None:
                    yield received
                elif reason is not None:
                    reasons.append(f"record: {reason}")

        await self._record(principal, await in_slices(accepted()))
        if reasons:
            response.partial_success.rejected_log_records = len(reasons)
            response.partial_success.error_message = _summary(reasons)
        return response

    async def _record(self, principal: Principal, received: list[ReceivedSpan]) -> None:
        """Record what was received, and the scores in it, if the credential may record scores."""
        await self._traces.record(principal, received)
        if Scope.SCORES_WRITE not in principal.scopes:
            return
        for each in received:
            for number, score in enumerate(each.reading.scores):
                recorded = ScoreRecorded(subject_run_id=each.trace_id, score=score)
                score_id = f"{each.trace_id}.{each.id}.{number}"
                try:
                    await self._recorder.record(principal.tenant, score_id, recorded, principal.restriction)
                except ServiceError as error:
                    if error.reason not in _SCORE_LEFT:
                        raise

    async def export_metrics(self, request: ExportMetricsServiceRequest, _: Principal) -> ExportMetricsServiceResponse:
        """Refuse all points of a request: metrics are not kept."""
        points = sum(
            len(getattr(metric, kind).data_points)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if (kind := metric.WhichOneof("data")) is not None
        )
        response = ExportMetricsServiceResponse()
        if points:
            response.partial_success.rejected_data_points = points
            response.partial_success.error_message = "lavant keeps no metrics; send them elsewhere"
        return response


def _refusal(received: ReceivedSpan) -> str | None:
    """Return why a span cannot be recorded, or None."""
    if len(received.trace_id) != 2 * _TRACE_ID_BYTES or not received.trace_id.strip("0"):
        return f"trace_id must have {_TRACE_ID_BYTES} bytes that are not all zero"
    if len(received.id) != 2 * _SPAN_ID_BYTES or not received.id.strip("0"):
        return f"span_id must have {_SPAN_ID_BYTES} bytes that are not all zero"
    if len(received.parent_id) not in (0, 2 * _SPAN_ID_BYTES):
        return f"parent_span_id must be empty or have {_SPAN_ID_BYTES} bytes"
    if len(received.raw) > MAX_VALUE_BYTES:
        return f"has {len(received.raw):,} bytes with its resource, and may have {MAX_VALUE_BYTES:,}"
    return None


def _summary(reasons: list[str]) -> str:
    counted = Counter(reasons)
    named = [f"{reason} ({count:,} times)" if count > 1 else reason for reason, count in counted.items()]
    more = len(named) - _MOST_REASONS
    return "; ".join([*named[:_MOST_REASONS], *([f"and {more:,} other reasons"] if more > 0 else [])])
