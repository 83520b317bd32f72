"""Which trace an event belongs to, where OpenTelemetry is in use."""

import sys
from collections.abc import Callable

from lavant.v1.event_pb2 import Event

TraceSource = Callable[[Event], None]

# Parts of a message and of a tool's output: what they belong to carries the context already.
_PARTS = frozenset({"text_delta", "reasoning_delta", "tool_arguments_delta", "tool_output_delta"})


def trace_source() -> TraceSource:
    """Return what gives an event the trace context of the current span; nothing if nobody uses OpenTelemetry.

    Never imports it: without the application's own import there is no span to find.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return lambda _: None

    def set_context(event: Event) -> None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid and not event.HasField("trace") and event.WhichOneof("payload") not in _PARTS:
            event.trace.trace_id = f"{context.trace_id:032x}"
            event.trace.span_id = f"{context.span_id:016x}"

    return set_context


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """The trace context of the current span, as W3C's Trace Context has it, for a call's metadata.

    Empty where there is no span, or where nobody has imported OpenTelemetry.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not (context := trace.get_current_span().get_span_context()).is_valid:
        return ()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    if not context.trace_state:
        return (("traceparent", parent),)
    return (("traceparent", parent), ("tracestate", context.trace_state.to_header()))
