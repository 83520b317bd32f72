"""OpenTelemetry's spans, of the SDK and of pydantic-ai's own instrumentation, recorded on a real server."""

from collections.abc import Iterable, Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer, set_span_in_context
from pydantic_ai import Agent, InstrumentationSettings
from pydantic_ai.models.test import TestModel

from lavant.client import Client, Event, Run, RunState
from lavant.client.integrations.opentelemetry import LavantSpanProcessor


@pytest.fixture
def provider(blocking: Client) -> Iterator[TracerProvider]:
    """A provider whose spans are recorded."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(LavantSpanProcessor(blocking, labels={"from": "spans"}))
    yield provider
    provider.shutdown()


@pytest.fixture
def tracer(provider: TracerProvider) -> Tracer:
    """What opens spans."""
    return provider.get_tracer("test")


def only_run(client: Client) -> Run:
    (run,) = client.runs.list()
    return run


def of(events: Iterable[Event], kind: str) -> list[Event]:
    return [event for event in events if event.type == kind]


def test_agent_of_pydantic_ai_is_recorded_by_spans(blocking: Client, provider: TracerProvider, tracer: Tracer) -> None:
    agent = Agent(TestModel(), name="weather")
    agent.instrument = InstrumentationSettings(tracer_provider=provider)

    @agent.tool_plain
    def search(city: str) -> int:
        with tracer.start_as_current_span("look up"):
            return len(city) + 3

    with tracer.start_as_current_span("request"):
        agent.run_sync("hi")
    assert provider.force_flush()
    run = only_run(blocking)
    recording = blocking.runs.stream(run.id).collect()
    (whole,) = recording.steps
    assert (run.name, run.state, run.labels["from"]) == ("request", RunState.SUCCEEDED, "spans")
    assert (whole.name, whole.kind) == ("invoke_agent weather", "agent")
    assert [step.kind for step in whole.children] == ["model_request", "tool", "model_request"]
    assert [step.name for step in whole.children[1].children] == ["look up"]
    (call,) = recording.tool_calls
    assert (call.name, call.arguments, call.result) == ("search", {"city": "a"}, 4)
    assert recording.text == '{"search":4}'
    asked = of(recording.events, "message_finished")[0].proto.message_finished.parts[0].tool_call
    assert asked.tool_call_id == of(recording.events, "tool_call_started")[0].proto.tool_call_started.call.tool_call_id
    assert (recording.usage.input_tokens, recording.usage.output_tokens, recording.usage.requests) == (103, 13, 2)


def test_events_carry_their_span_and_its_times(blocking: Client, provider: TracerProvider, tracer: Tracer) -> None:
    root = tracer.start_span("root", start_time=1_000_000_000)
    child = tracer.start_span("child", set_span_in_context(root), start_time=2_000_000_000)
    child.end(5_000_000_000)
    root.end(6_000_000_000)
    assert provider.force_flush()
    events = list(blocking.runs.events(only_run(blocking).id))
    spans = [root, child, child, root]
    assert [event.proto.event_time.seconds for event in events] == [1, 2, 5, 6]
    assert [event.proto.trace.span_id for event in events] == [f"{s.get_span_context().span_id:016x}" for s in spans]
    assert {event.proto.trace.trace_id for event in events} == {f"{root.get_span_context().trace_id:032x}"}
    assert events[2].proto.step_finished.duration.ToSeconds() == 3


def test_span_with_an_exception_fails(blocking: Client, provider: TracerProvider, tracer: Tracer) -> None:
    with pytest.raises(ZeroDivisionError), tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
        raise ZeroDivisionError("no")
    assert provider.force_flush()
    recording = blocking.runs.stream(only_run(blocking).id).collect(raise_for_state=False)
    assert recording.result.state is RunState.FAILED
    for error in (recording.result.error, recording.steps[0].error):
        assert error is not None
        assert (error.message, error.type) == ("no", "ZeroDivisionError")


def test_late_child_is_recorded_as_failed(blocking: Client, provider: TracerProvider, tracer: Tracer) -> None:
    root = tracer.start_span("root")
    within = set_span_in_context(root)
    first, second, late = (tracer.start_span(name, within) for name in ("first", "second", "late"))
    first.end()
    second.end()
    root.end()
    late.end()
    tracer.start_span("later", within).end()
    assert provider.force_flush()
    recording = blocking.runs.stream(only_run(blocking).id).collect()
    assert recording.result.state is RunState.SUCCEEDED
    assert [(step.name, step.error is None) for step in recording.steps] == [
        ("first", True),
        ("second", True),
        ("late", False),
    ]


def test_shutdown_ends_what_is_open(blocking: Client, provider: TracerProvider, tracer: Tracer) -> None:
    tracer.start_span("root")
    provider.shutdown()
    run = only_run(blocking)
    assert (run.state, "shut down" in str(run.result)) == (RunState.FAILED, True)


def test_root_with_odd_messages_ends_its_run_as_succeeded(
    blocking: Client, provider: TracerProvider, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("chat") as span:
        span.set_attribute("gen_ai.operation.name", "chat")
        span.set_attribute("gen_ai.output.messages", '[{"role": "assistant", "parts": 5}]')
    assert provider.force_flush()
    assert only_run(blocking).state is RunState.SUCCEEDED
