"""Spans as real instrumentations make them: attributes, names and times that come late, odd or not at all."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, Tracer, set_span_in_context

from lavant.client import Client, Recording, RunState
from lavant.client.integrations.opentelemetry import LavantSpanProcessor

TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"}


@pytest.fixture
def provider(blocking: Client) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(LavantSpanProcessor(blocking))
    yield provider
    provider.shutdown()


@pytest.fixture
def tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("test")


def within(parent: Span) -> Any:
    return set_span_in_context(parent)


def recorded(client: Client, provider: TracerProvider) -> Recording:
    assert provider.force_flush()
    (run,) = client.runs.list()
    return client.runs.stream(run.id).collect(raise_for_state=False)


def test_the_run_has_the_times_of_its_root_span(blocking: Client, provider: TracerProvider, tracer: Tracer) -> None:
    root = tracer.start_span("root", start_time=100_000_000_000)
    root.end(150_500_000_000)
    recording = recorded(blocking, provider)
    assert recording.result.duration is not None
    assert recording.result.duration.total_seconds() == 50.5
    assert [event.proto.event_time.ToNanoseconds() for event in recording.events] == [100_000_000_000, 150_500_000_000]


@pytest.mark.parametrize("times", [(0, 0), (-5, -1), (10**30, 10**31), (2_000_000_000, 1_000_000_000)])
def test_times_that_cannot_be_are_replaced(
    blocking: Client, provider: TracerProvider, tracer: Tracer, times: tuple[int, int]
) -> None:
    root = tracer.start_span("root", start_time=times[0])
    tracer.start_span("child", within(root), start_time=times[0]).end(times[1])
    root.end(times[1])
    recording = recorded(blocking, provider)
    assert recording.result.state is RunState.SUCCEEDED
    assert [step.name for step in recording.steps] == ["child"]


def test_attributes_set_after_the_start_count(blocking: Client, provider: TracerProvider, tracer: Tracer) -> None:
    with tracer.start_as_current_span("HTTP") as root:
        root.update_name("GET /weather")
        root.set_attribute("gen_ai.input.messages", '[{"role": "user"}]')
        with tracer.start_as_current_span("s") as span:
            span.update_name("search the web")
            span.set_attributes({**TOOL, "gen_ai.tool.call.arguments": '{"q": "Oslo"}'})
            with tracer.start_as_current_span("within"):
                pass
            span.set_attribute("gen_ai.tool.call.result", '"cold"')
    recording = recorded(blocking, provider)
    (run,) = blocking.runs.list()
    assert run.name == "GET /weather"
    (step,) = recording.steps
    assert (step.name, step.kind, step.input, step.output) == ("search", "tool", {"q": "Oslo"}, "cold")
    (call,) = recording.tool_calls
    assert (call.name, call.arguments, call.result) == ("search", {"q": "Oslo"}, "cold")


def test_call_that_is_known_only_at_its_end_is_recorded(
    blocking: Client, provider: TracerProvider, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("root"), tracer.start_as_current_span("work") as span:
        with tracer.start_as_current_span("within"):
            pass
        assert provider.force_flush()
        span.set_attributes({**TOOL, "gen_ai.tool.call.arguments": "{}", "gen_ai.tool.call.result": "7"})
    recording = recorded(blocking, provider)
    (call,) = recording.tool_calls
    assert (call.name, call.arguments, call.result) == ("search", {}, 7)
    assert [step.name for step in recording.steps[0].children] == ["within"]


def test_open_span_is_shown_before_its_end(blocking: Client, tracer: Tracer) -> None:
    with tracer.start_as_current_span("root"), tracer.start_as_current_span("slow"):
        run = next(change.run for change in blocking.runs.watch() if change.run)
        with blocking.runs.stream(run.id) as stream:
            assert next(event.data.name for event in stream if event.type == "step_started") == "slow"


@pytest.mark.parametrize("name", ["a\nb", "n" * 10_000, "", "\0", "\ud800"])
def test_a_root_of_any_name_is_recorded(blocking: Client, provider: TracerProvider, tracer: Tracer, name: str) -> None:
    with tracer.start_as_current_span(name), tracer.start_as_current_span(name):
        pass
    recording = recorded(blocking, provider)
    assert (recording.result.state, len(recording.steps)) == (RunState.SUCCEEDED, 1)


@pytest.mark.parametrize("given", ["c" * 600, "a\nb", "call-1", ""])
def test_a_call_has_one_id_in_its_message_and_its_tool(
    blocking: Client, provider: TracerProvider, tracer: Tracer, given: str
) -> None:
    asked = f'[{{"role": "assistant", "parts": [{{"type": "tool_call", "id": {given!r}, "name": "search"}}]}}]'
    with tracer.start_as_current_span("root"):
        said = asked.replace("'", '"')
        tracer.start_span("chat", attributes={**CHAT, "gen_ai.output.messages": said}).end()
        tracer.start_span("search", attributes={**TOOL, "gen_ai.tool.call.id": given}).end()
    recording = recorded(blocking, provider)
    (message,) = [event.proto.message_finished for event in recording.events if event.type == "message_finished"]
    (call,) = recording.tool_calls
    assert call.id == message.parts[0].tool_call.tool_call_id


def test_a_child_that_ends_after_its_parent_ends_as_it_did(
    blocking: Client, provider: TracerProvider, tracer: Tracer
) -> None:
    root = tracer.start_span("root", start_time=1_000_000_000)
    parent = tracer.start_span("parent", within(root), start_time=2_000_000_000)
    child = tracer.start_span("child", within(parent), start_time=3_000_000_000)
    tracer.start_span("grandchild", within(child), start_time=3_000_000_000)
    parent.end(4_000_000_000)
    child.end(7_000_000_000)
    tracer.start_span("late", within(parent), start_time=8_000_000_000).end(9_000_000_000)
    root.end(9_000_000_000)
    recording = recorded(blocking, provider)
    steps = {step.name: step for top in recording.steps for step in top.walk()}
    assert steps["child"].state is RunState.SUCCEEDED
    assert steps["child"].duration is not None
    assert steps["child"].duration.total_seconds() == 4
    assert steps["child"].parent_id == steps["parent"].id
    assert (steps["late"].state, steps["grandchild"].state) == (RunState.SUCCEEDED, RunState.FAILED)
    assert recording.result.state is RunState.SUCCEEDED


def test_a_model_that_fails_fails_its_step_with_the_error_of_its_provider(
    blocking: Client, provider: TracerProvider, tracer: Tracer
) -> None:
    with (
        tracer.start_as_current_span("root"),
        pytest.raises(ConnectionError),
        tracer.start_as_current_span("chat", attributes=CHAT),
    ):
        raise ConnectionError("429: rate limited")
    (step,) = recorded(blocking, provider).steps
    assert step.error is not None
    assert (step.state, step.error.message) == (RunState.FAILED, "429: rate limited")


@pytest.mark.parametrize(
    "called",
    [
        {"rpc.system": "grpc", "rpc.service": "lavant.v1.RunService", "rpc.method": "CreateRun"},
        {"rpc.system.name": "grpc", "rpc.method": "lavant.v1.RunService/CreateRun"},
        {"rpc.method": "/lavant.v1.RunService/CreateRun"},
    ],
)
def test_calls_to_lavant_and_what_is_within_them_are_left_out(
    blocking: Client, provider: TracerProvider, tracer: Tracer, called: dict[str, str]
) -> None:
    call = tracer.start_span("lavant.v1.RunService/CreateRun", attributes=called)
    tracer.start_span("dns", within(call)).end()
    call.end()
    tracer.start_span("Orders", attributes={"rpc.method": "lavantage.v1.Orders/Get"}).end()
    assert provider.force_flush()
    assert [run.name for run in blocking.runs.list()] == ["Orders"]


def test_spans_that_end_while_garbage_is_collected_block_nobody(
    blocking: Client, provider: TracerProvider, tracer: Tracer
) -> None:
    class Holds:
        def __init__(self, root: Span) -> None:
            self.own = self
            self.span = tracer.start_span("held", within(root))

        def __del__(self) -> None:
            self.span.end()

    root = tracer.start_span("root")
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(20):
            Holds(root)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    root.end()
    steps = recorded(blocking, provider).steps
    assert [(step.name, step.state) for step in steps] == [("held", RunState.SUCCEEDED)] * 20


def test_deeply_nested_spans_that_never_end_end_with_their_root(
    blocking: Client, provider: TracerProvider, tracer: Tracer
) -> None:
    root = parent = tracer.start_span("root")
    for _ in range(1_500):
        parent = tracer.start_span("nested", within(parent))
    root.end()
    recording = recorded(blocking, provider)
    assert recording.result.state is RunState.SUCCEEDED
    assert recording.total_steps == 1_500
