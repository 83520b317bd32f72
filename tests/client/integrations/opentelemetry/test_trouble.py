"""Spans that come faster than they can be recorded, while the server is away, or of lavant itself."""

import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from lavant.client import Client, RunState, Unavailable
from lavant.client.integrations.opentelemetry import LavantSpanProcessor
from support.server import ServerProcess


def provider_of(processor: LavantSpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


async def test_a_full_queue_ends_the_run_it_has_no_room_for(
    server_process: ServerProcess, blocking: Client, caplog: pytest.LogCaptureFixture
) -> None:
    provider = provider_of(LavantSpanProcessor(blocking, queue_limit=5))
    tracer = provider.get_tracer("test")
    waiting, flooding = tracer.start_span("waiting"), tracer.start_span("flooding")
    assert provider.force_flush()
    await server_process.kill()
    waiting.end()
    for _ in range(20):
        tracer.start_span("child", set_span_in_context(flooding)).end()
    flooding.end()
    await server_process.start()
    provider.shutdown()
    assert blocking.flush(10)
    ended = {run.name: run for run in blocking.runs.list()}
    assert (ended["waiting"].state, ended["flooding"].state) == (RunState.SUCCEEDED, RunState.FAILED)
    assert "too many spans were waiting" in str(ended["flooding"].result)
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [message for message in said if "too many spans" in message] == [
        "run of span flooding is not recorded any further: too many spans are waiting"
    ]


def test_the_application_works_without_a_server(caplog: pytest.LogCaptureFixture) -> None:
    with Client("127.0.0.1:9", timeout=0.1) as nowhere:
        provider = provider_of(LavantSpanProcessor(nowhere))
        with provider.get_tracer("test").start_as_current_span("root"):
            pass
        assert not provider.force_flush()
        assert not provider.force_flush()
        provider.shutdown()
        provider.shutdown()
    begun, *left, lost = [record.message for record in caplog.records]
    assert "the server is out of reach" in begun
    assert [message for message in left if "not all spans are durable" in message] == left
    assert "2 events of 1 runs are lost" in lost


def test_strict_processor_raises_what_could_not_be_recorded() -> None:
    with Client("127.0.0.1:9", timeout=0.1) as nowhere:
        processor = LavantSpanProcessor(nowhere, on_error="raise")
        with provider_of(processor).get_tracer("test").start_as_current_span("root"):
            pass
        with pytest.raises(Unavailable):
            processor.force_flush()
        processor.shutdown()


def test_a_span_with_a_parent_elsewhere_is_a_run_in_the_same_trace(blocking: Client) -> None:
    provider = provider_of(LavantSpanProcessor(blocking))
    elsewhere = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    with provider.get_tracer("test").start_as_current_span("root", set_span_in_context(NonRecordingSpan(elsewhere))):
        pass
    provider.shutdown()
    (run,) = blocking.runs.list()
    assert {event.proto.trace.trace_id for event in blocking.runs.events(run.id)} == {f"{0xABC:032x}"}


def test_calls_to_lavant_are_not_recorded(blocking: Client) -> None:
    provider = provider_of(LavantSpanProcessor(blocking))
    called = {"rpc.system": "grpc", "rpc.service": "lavant.v1.EventService", "rpc.method": "PublishEvents"}
    provider.get_tracer("test").start_span("/lavant.v1.EventService/PublishEvents", attributes=called).end()
    provider.get_tracer("test").start_span("/shop.v1.Orders/Get", attributes={"rpc.service": "shop.v1.Orders"}).end()
    provider.shutdown()
    assert [run.name for run in blocking.runs.list()] == ["/shop.v1.Orders/Get"]


def test_concurrent_roots_are_separate_runs(blocking: Client) -> None:
    provider = provider_of(LavantSpanProcessor(blocking))
    tracer = provider.get_tracer("test")
    one, two = tracer.start_span("one"), tracer.start_span("two")
    of_one, of_two = tracer.start_span("a", set_span_in_context(one)), tracer.start_span("b", set_span_in_context(two))
    one.end()
    of_two.end()
    of_one.end()
    two.end()
    provider.shutdown()
    found = {run.name: blocking.runs.stream(run.id).collect() for run in blocking.runs.list()}
    assert {name: [step.name for step in recording.steps] for name, recording in found.items()} == {
        "one": ["a"],
        "two": ["b"],
    }


def test_usage_of_nested_spans_is_counted_once(blocking: Client) -> None:
    provider = provider_of(LavantSpanProcessor(blocking))
    tracer = provider.get_tracer("test")
    used = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2}
    with (
        tracer.start_as_current_span("root"),
        tracer.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent", **used}),
        tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat", **used}),
    ):
        pass
    provider.shutdown()
    (run,) = blocking.runs.list()
    recording = blocking.runs.stream(run.id).collect()
    assert (recording.usage.input_tokens, recording.usage.requests) == (10, 1)
    (whole,) = recording.steps
    assert (whole.usage, whole.children[0].usage and whole.children[0].usage.input_tokens) == (None, 10)
