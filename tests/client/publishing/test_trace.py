"""Events and calls carry the trace context of the span that they are made in."""

from typing import Any

import grpc
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span

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


async def test_calls_carry_the_context_of_their_span() -> None:
    seen: list[dict[str, str | bytes]] = []

    async def get_run(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        seen.append(dict(context.invocation_metadata() or ()))
        return b""

    server = grpc.aio.server()
    handlers: Any = {"GetRun": grpc.unary_unary_rpc_method_handler(get_run)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lavant.v1.RunService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        await client.runs.get("run")
        for state in (TraceState(), TraceState([("vendor", "x")])):
            span = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=TraceFlags(1), trace_state=state)
            with use_span(NonRecordingSpan(span)):
                await client.runs.get("run")
    await server.stop(None)
    parent = f"00-{0xAB:032x}-{0xCD:016x}-01"
    assert [(one.get("traceparent"), one.get("tracestate")) for one in seen] == [
        (None, None),
        (parent, None),
        (parent, "vendor=x"),
    ]
