"""Trace context of events and calls, if OpenTelemetry is in use."""

import sys
from collections.abc import Callable

from lavant.v1.event_pb2 import Event

TraceSource = Callable[[Event], None]

# Parts of a message and of a tool's output: what they belong to carries the context already.
_PARTS = frozenset({"text_delta", "reasoning_delta", "tool_arguments_delta", "tool_output_delta"})


def trace_source() -> TraceSource:
    """Return a function that sets the trace context of the current span in an event.

    It has no effect without OpenTelemetry, which is never imported here: without the application's import there is no
    span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return lambda _: None

    def set_context(event: Event) -> None:
        if event.WhichOneof("payload") in _PARTS:
            return
        context = trace.get_current_span().get_span_context()
        if context.is_valid and not event.HasField("trace"):
            event.trace.trace_id = f"{context.trace_id:032x}"
            event.trace.span_id = f"{context.span_id:016x}"

    return set_context


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that carries the current span, in the form of W3C Trace Context.

    Empty without a span, or without OpenTelemetry.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not (context := trace.get_current_span().get_span_context()).is_valid:
        return ()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    if not context.trace_state:
        return (("traceparent", parent),)
    return (("traceparent", parent), ("tracestate", context.trace_state.to_header()))
