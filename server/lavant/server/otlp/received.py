"""Spans and log records as they are received."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from time import time_ns
from typing import Any, NamedTuple, Protocol

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, TracesData

from lavant.contract.text import to_name
from lavant.server.otlp.attributes import text, values_of
from lavant.server.otlp.readings import LogReading, SpanReading, pending_of, read_log, read_span
from lavant.server.store.chunk import varint
from lavant.v1.event_pb2 import SourceEvent, StepKind
from lavant.v1.run_pb2 import RunState

# Fields, all length-delimited: TracesData.resource_spans, ResourceSpans.resource, .scope_spans and .schema_url,
# ScopeSpans.scope, .spans and .schema_url. Those of logs have the same numbers.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"

LOG_TYPE = "log"
_ID_DIGITS, _TRACE_DIGITS = 16, 32
_UNNAMED = "unknown_service"  # what SDKs send if nobody names the service


class ReceivedSpan(NamedTuple):
    """A span as it was received, and its reading. IDs are in hexadecimal digits, that of a span is its step's too.

    `parent_id` is empty for the root of a trace, `end_ns` 0 for a span that is open. `raw` is a serialized TracesData
    of the span alone, with its resource and scope. `service` is the name of what sent it, empty if it has none.

    A log record is a span without children: `is_log`, and `raw` is a serialized LogsData then. Of those of no trace,
    `trace_id` stands for what they have in common.
    """

    trace_id: str
    id: str
    parent_id: str
    start_ns: int
    end_ns: int
    raw: bytes
    reading: SpanReading
    service: str
    is_log: bool = False
    has_trace: bool = True


class SpanRequest(Protocol):
    """A request or stored message with spans."""

    @property
    def resource_spans(self) -> "RepeatedCompositeFieldContainer[ResourceSpans]": ...


def received_spans(request: SpanRequest) -> Iterator[ReceivedSpan]:
    """Yield the spans of a request."""
    for resource_spans in request.resource_spans:
        resource = values_of(resource_spans.resource.attributes)
        service = _service_of(resource)
        around = _field(_FIRST, resource_spans.resource.SerializeToString())
        around_end = _text(_THIRD, resource_spans.schema_url)
        for scope_spans in resource_spans.scope_spans:
            scope = _field(_FIRST, scope_spans.scope.SerializeToString())
            scope_end = _text(_THIRD, scope_spans.schema_url)
            for span in scope_spans.spans:
                within = scope + _field(_SECOND, span.SerializeToString()) + scope_end
                raw = _field(_FIRST, around + _field(_SECOND, within) + around_end)
                yield _received(span, raw, read_span(span, resource, scope_spans.scope.name), service)


def _service_of(resource: Mapping[str, Any]) -> str:
    service = to_name(text(resource.get("service.name", "")))
    return "" if service.startswith(_UNNAMED) else service


def _received(span: Span, raw: bytes, reading: SpanReading, service: str) -> ReceivedSpan:
    span_id, parent_id = span.span_id, span.parent_span_id
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if end and reading.state == RunState.RUN_STATE_RUNNING and (announced := pending_of(span)) is not None:
        (span_id, parent_id), end = announced, 0
    if not any(parent_id) or parent_id == span_id:
        parent_id = b""
    start = min(start, end) if end else start
    return ReceivedSpan(span.trace_id.hex(), span_id.hex(), parent_id.hex(), start, end, raw, reading, service)


class LogsRequest(Protocol):
    """A request or stored message with log records."""

    @property
    def resource_logs(self) -> "RepeatedCompositeFieldContainer[ResourceLogs]": ...


def received_logs(request: LogsRequest) -> Iterator[ReceivedSpan | None]:
    """Yield the log records of a request; None for each that says nothing of an agent."""
    for resource_logs in request.resource_logs:
        resource = values_of(resource_logs.resource.attributes)
        service = _service_of(resource)
        around = _field(_FIRST, resource_logs.resource.SerializeToString())
        around_end = _text(_THIRD, resource_logs.schema_url)
        for scope_logs in resource_logs.scope_logs:
            scope = _field(_FIRST, scope_logs.scope.SerializeToString())
            scope_end = _text(_THIRD, scope_logs.schema_url)
            for record in scope_logs.log_records:
                reading = read_log(record, resource, scope_logs.scope.name)
                if reading is None:
                    yield None
                    continue
                own = record.SerializeToString()
                raw = _field(_FIRST, around + _field(_SECOND, scope + _field(_SECOND, own) + scope_end) + around_end)
                yield _received_log(record, raw, reading, service, sha256(own).hexdigest()[:_ID_DIGITS])


def _received_log(
    record: LogRecord, raw: bytes, reading: LogReading, service: str, record_id: str
) -> ReceivedSpan | None:
    """Return a log record as a span that ended when it was written; None if nothing says which run it is about."""
    has_trace = any(record.trace_id)
    common = reading.turn_id or reading.conversation_id
    if not has_trace and not common:
        return None
    end = record.time_unix_nano or record.observed_time_unix_nano or time_ns()
    ended = reading.state >= RunState.RUN_STATE_SUCCEEDED
    span = SpanReading(
        name=reading.tool.call.tool_name if reading.tool and ended else reading.name,
        kind=reading.kind if ended else StepKind.STEP_KIND_UNSPECIFIED,
        is_agent=reading.is_agent,
        agent_name=reading.agent_name,
        model=reading.model,
        version=reading.version,
        conversation_id=reading.conversation_id,
        state=reading.state if ended else RunState.RUN_STATE_SUCCEEDED,
        error=reading.error if ended else None,
        input_json=reading.input_json,
        output_json="",
        messages=reading.messages,
        tool=reading.tool if ended else None,
        usage=None if has_trace else reading.usage,  # the record's span has it too
        scores=reading.scores,
    )
    return ReceivedSpan(
        trace_id=record.trace_id.hex() if has_trace else sha256(common.encode()).hexdigest()[:_TRACE_DIGITS],
        id=record_id,
        parent_id=record.span_id.hex() if any(record.span_id) else "",
        start_ns=max(0, end - round((reading.duration or 0) * 1e9)),
        end_ns=end,
        raw=raw,
        reading=span,
        service=service,
        is_log=True,
        has_trace=has_trace,
    )


def received_again(source: SourceEvent) -> list[ReceivedSpan]:
    """Return what was received, from the event that keeps it."""
    if source.type == LOG_TYPE:
        return [each for each in received_logs(LogsData.FromString(source.content)) if each is not None]
    return list(received_spans(TracesData.FromString(source.content)))


def source_of(received: ReceivedSpan) -> SourceEvent:
    """Return what an event keeps of what was received."""
    return SourceEvent(protocol="otlp", type=LOG_TYPE if received.is_log else "span", content=received.raw)


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + varint(len(data)) + data


def _text(tag: bytes, text: str) -> bytes:
    return _field(tag, text.encode()) if text else b""
