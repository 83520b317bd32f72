"""Spans and log records as they are received."""

from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple, Protocol

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

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


class LogsRequest(Protocol):
    """A request or stored message with log records."""

    @property
    def resource_logs(self) -> "RepeatedCompositeFieldContainer[ResourceLogs]": ...


class _Sender:
    """Sender of spans or log records: the attributes of its resource, its service, and the name of the scope."""

    def __init__(self, group: ResourceSpans | ResourceLogs, part: ScopeSpans | ScopeLogs) -> None:
        self.resource = values_of(group.resource.attributes)
        self.scope = part.scope.name
        service = to_name(text(self.resource.get("service.name", "")))
        self.service = "" if service.startswith(_UNNAMED) else service
        self._group_head = _field(_FIRST, group.resource.SerializeToString())
        self._group_tail = _text(_THIRD, group.schema_url)
        self._head = _field(_FIRST, part.scope.SerializeToString())
        self._tail = _text(_THIRD, part.schema_url)

    def alone(self, serialized: bytes) -> bytes:
        """Return a message of one span or log record alone, with its resource and scope."""
        part = self._head + _field(_SECOND, serialized) + self._tail
        return _field(_FIRST, self._group_head + _field(_SECOND, part) + self._group_tail)


def received_spans(request: SpanRequest) -> Iterator[ReceivedSpan]:
    """Yield the spans of a request."""
    for group in request.resource_spans:
        for part in group.scope_spans:
            sender = _Sender(group, part)
            for span in part.spans:
                yield _received(span, sender)


def received_logs(request: LogsRequest) -> Iterator[ReceivedSpan | None]:
    """Yield the log records of a request; None for each that says nothing of an agent, or of none that is named."""
    for group in request.resource_logs:
        for part in group.scope_logs:
            sender = _Sender(group, part)
            for record in part.log_records:
                reading = read_log(record, sender.resource, sender.scope)
                yield None if reading is None else _received_log(record, reading, sender)


def _received(span: Span, sender: _Sender) -> ReceivedSpan:
    reading = read_span(span, sender.resource, sender.scope)
    span_id, parent_id = span.span_id, span.parent_span_id
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if end and reading.state == RunState.RUN_STATE_RUNNING and (announced := pending_of(span)) is not None:
        (span_id, parent_id), end = announced, 0
    if not any(parent_id) or parent_id == span_id:
        parent_id = b""
    start = min(start, end) if end else start
    raw = sender.alone(span.SerializeToString())
    return ReceivedSpan(span.trace_id.hex(), span_id.hex(), parent_id.hex(), start, end, raw, reading, sender.service)


def _received_log(record: LogRecord, reading: LogReading, sender: _Sender) -> ReceivedSpan | None:
    """Return a log record as a span that ended when it was written; None if nothing says which run it is about."""
    has_trace = any(record.trace_id)
    common = reading.turn_id or reading.conversation_id
    if not has_trace and not common:
        return None
    serialized = record.SerializeToString()
    end = record.time_unix_nano or record.observed_time_unix_nano or 1  # the same if it is sent again
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
        id=sha256(serialized).hexdigest()[:_ID_DIGITS],
        parent_id=record.span_id.hex() if any(record.span_id) else "",
        start_ns=max(0, end - round((reading.duration or 0) * 1e9)),
        end_ns=end,
        raw=sender.alone(serialized),
        reading=span,
        service=sender.service,
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
