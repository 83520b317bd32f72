"""Events carry the trace context of the span that they were published in."""

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from lavant.client import AsyncClient

SPAN = SpanContext(trace_id=0xAB, span_id=0xCD, is_remote=False, trace_flags=TraceFlags(1))


async def test_all_but_deltas_carry_the_context_of_their_span(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise") as run:
        with use_span(NonRecordingSpan(SPAN)):
            await run.text("x")
            await run.progress("rows", 1)
    events = {event.type: event.proto async for event in client.runs.events(run.id)}
    traced = {name for name, event in events.items() if event.HasField("trace")}
    assert traced == {"message_started", "progress_reported"}
    trace = events["progress_reported"].trace
    assert (trace.trace_id, trace.span_id) == (f"{0xAB:032x}", f"{0xCD:016x}")
