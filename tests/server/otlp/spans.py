"""Spans as exporters send them, made from plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lavant.server.otlp.readings import SpanReading, read_span

START = 1_700_000_000_000_000_000
SPAN_ID = bytes.fromhex("00f067aa0ba902b7")
TRACE_ID = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")


def any_value(value: Any) -> AnyValue:
    """Return the value of an attribute."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    made = AnyValue()
    if isinstance(value, str):
        made.string_value = value
    elif isinstance(value, Mapping):
        made.kvlist_value.values.extend(key_values(value))
        made.kvlist_value.SetInParent()
    elif isinstance(value, Sequence):
        made.array_value.values.extend(any_value(item) for item in value)
        made.array_value.SetInParent()
    return made


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Return attributes as the protocol has them."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span_of(
    attributes: Mapping[str, Any],
    *,
    name: str = "span",
    end: int = START + 1_000_000_000,
    status: Status | None = None,
    events: Mapping[str, Mapping[str, Any]] | None = None,
) -> Span:
    """Return a span that has ended, with one event per name."""
    return Span(
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        name=name,
        start_time_unix_nano=START,
        end_time_unix_nano=end,
        attributes=key_values(attributes),
        status=status,
        events=[Span.Event(name=event, attributes=key_values(said)) for event, said in (events or {}).items()],
    )


def reading_of(attributes: Mapping[str, Any], **settings: Any) -> SpanReading:
    """Return the reading of a span with these attributes."""
    return read_span(span_of(attributes, **settings), {}, "")
