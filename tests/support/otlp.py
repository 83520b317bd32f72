"""Exports of OpenTelemetry for tests: traces made by hand, and a stub of the service."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from lavant.v1.event_pb2 import Event

TRACE_ID = bytes(range(1, 17))
BEGAN = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
Values = Mapping[str, str | int]
AGENT: Values = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "weather"}
CHAT: Values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5", "gen_ai.usage.input_tokens": 3}
TOOL: Values = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "gen_ai.tool.call.id": "call-1"}


def attributes(values: Values) -> list[KeyValue]:
    """Attributes of a span or a resource."""
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]


def span_id(number: int) -> bytes:
    """ID of the span of a number; empty for 0, which is no span."""
    return number.to_bytes(8, "big") if number else b""


def span(number: int, parent: int = 0, values: Values | None = None, *, failed: str = "", **fields: Any) -> Span:
    """A span that lasts from the second of its number to the hundredth."""
    return Span(
        **{
            "trace_id": TRACE_ID,
            "span_id": span_id(number),
            "parent_span_id": span_id(parent),
            "name": f"span {number}",
            "start_time_unix_nano": BEGAN + number * SECOND,
            "end_time_unix_nano": BEGAN + 100 * SECOND,
            "attributes": attributes(values or {}),
            "status": Status(code=Status.STATUS_CODE_ERROR, message=failed) if failed else None,
            **fields,
        }
    )


def a_trace() -> list[Span]:
    """Six spans of an agent that calls a model twice and a tool between."""
    return [
        span(1, 0, AGENT),
        span(2, 1, CHAT),
        span(3, 2),
        span(4, 1, TOOL),
        span(5, 4),
        span(6, 1, CHAT),
    ]


def request_of(spans: Iterable[Span], **resource: str) -> ExportTraceServiceRequest:
    """A request with spans of one service."""
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=attributes({"service.name": "forecasts", **resource})),
                scope_spans=[ScopeSpans(spans=spans)],
            )
        ]
    )


async def export(channel: aio.Channel, spans: Iterable[Span]) -> ExportTraceServiceResponse:
    """Export spans over gRPC."""
    stub: Any = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
    response: ExportTraceServiceResponse = await stub.Export(request_of(spans))
    return response


def tree_of(events: Sequence[Event]) -> dict[str, tuple[str, str, str]]:
    """The steps of a run by their IDs: name, ID of the parent, and state."""
    started = {event.step_started.step_id: event.step_started for event in events if event.HasField("step_started")}
    states = {e.step_finished.step_id: str(e.step_finished.state) for e in events if e.HasField("step_finished")}
    return {key: (each.name, each.parent_step_id, states.get(key, "")) for key, each in started.items()}
