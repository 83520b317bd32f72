"""What an agent does, streamed while it does it."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.capabilities import ProcessEventStream
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.messages import AgentStreamEvent, ModelMessage, PartStartEvent, TextPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests

from lavant.client import AsyncClient, RunState
from lavant.client.integrations.agent_streaming import (
    StreamEvent,
    StreamEventType,
    agent_end_event,
    agent_start_event,
    collect_stream_result,
    error_event,
    llm_chunk_event,
    progress_event,
    run_stream,
    run_stream_with_tools,
    stream_text,
    stream_tool_calls,
    tool_end_event,
    tool_start_event,
)

CHUNK, START, END = StreamEventType.LLM_CHUNK, StreamEventType.TOOL_START, StreamEventType.TOOL_END


def calling(*names: str, then: str = "done") -> FunctionModel:
    """A model that calls these tools at once, each with its position, and then says something."""

    async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if any(message.kind == "response" for message in messages):
            yield then
        else:
            for position, name in enumerate(names):
                arguments = json.dumps({"position": position})
                yield {position: DeltaToolCall(name=name, json_args=arguments, tool_call_id=f"call-{position}")}

    return FunctionModel(stream_function=respond)


def speaking(speak: Callable[[], AsyncIterator[str]]) -> FunctionModel:
    async def respond(_: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
        async for chunk in speak():
            yield chunk

    return FunctionModel(stream_function=respond)


async def read_until(kind: type[Exception], stream: AsyncIterator[StreamEvent]) -> list[StreamEvent]:
    """Read a stream to its end, which must be an error of this kind."""
    events: list[StreamEvent] = []

    async def read() -> None:
        while True:
            events.append(await anext(stream))

    with pytest.raises(kind):
        await read()
    return events


def types(events: list[StreamEvent]) -> list[str]:
    return [event.event_type.value for event in events]


async def test_text_is_seen_before_the_model_is_done() -> None:
    seen = asyncio.Event()

    async def speak() -> AsyncIterator[str]:
        yield "a"
        await seen.wait()
        yield "b"

    said = []
    async for chunk in stream_text(Agent(speaking(speak)), "go"):
        said.append(chunk)
        seen.set()
    assert said == ["a", "b"]


async def test_a_tool_is_seen_before_it_is_done() -> None:
    agent, seen = Agent(calling("work")), asyncio.Event()

    @agent.tool_plain
    async def work(position: int) -> list[int]:
        await seen.wait()
        return [position]

    events = []
    async for event in run_stream(agent, "go"):
        events.append(event)
        if event.event_type is START:
            seen.set()
    assert types(events) == ["agent_start", "progress", "tool_start", "tool_end", "llm_chunk", "progress", "agent_end"]
    begun, ended = events[2].data, events[3].data
    assert (begun["tool_name"], begun["args"]) == ("work", {"position": 0})
    assert (ended["tool_name"], ended["result"], ended["outcome"]) == ("work", [0], "success")
    assert ended["tool_call_id"] == begun["tool_call_id"] == "call-0"
    assert ended["duration_seconds"] > 0
    assert [event.data["iteration"] for event in events if event.event_type is StreamEventType.PROGRESS] == [1, 2]
    assert (events[-1].data["success"], events[-1].data["total_iterations"]) == (True, 2)
    assert events[-1].data["total_tokens"] == events[-2].data["total_tokens"] > 0
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    assert all(event.timestamp.tzinfo for event in events)


async def test_parallel_calls_of_one_tool_have_their_own_results() -> None:
    agent = Agent(calling("work", "work", "work"))
    may_return, order = [asyncio.Event() for _ in range(3)], (1, 2, 0)

    @agent.tool_plain
    async def work(position: int) -> str:
        await may_return[position].wait()
        return f"result {position}"

    seen = []
    async for name, args, result in stream_tool_calls(agent, "go"):
        seen.append((name, args["position"], result))
        if 3 <= len(seen) < 6:  # all are at work: let them return in another order
            may_return[order[len(seen) - 3]].set()
    starts = [("work", position, None) for position in range(3)]
    assert seen == [*starts, *(("work", position, f"result {position}") for position in order)]


async def test_a_tool_that_returns_nothing_or_asks_again_is_done_too() -> None:
    agent = Agent(calling("silent", "fussy"))

    @agent.tool_plain
    def silent(position: int) -> None:
        return None

    @agent.tool_plain
    def fussy(position: int) -> str:
        raise ModelRetry("not so")

    calls = [call async for call in stream_tool_calls(agent, "go")]
    results = {name: result for name, _, result in calls if result is not None}
    assert len(calls) == 4
    assert results["silent"] == ""
    assert "not so" in results["fussy"]


async def test_tool_that_raises_ends_all_calls_and_fails_the_reader() -> None:
    agent = Agent(calling("quick", "broken", "slow"))
    quick_is_done, cleaned_up = asyncio.Event(), asyncio.Event()

    @agent.tool_plain
    async def quick(position: int) -> str:
        quick_is_done.set()
        return "well"

    @agent.tool_plain
    async def broken(position: int) -> str:
        await quick_is_done.wait()
        raise ValueError("kaputt")

    @agent.tool_plain
    async def slow(position: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    events = await read_until(ValueError, run_stream(agent, "go"))
    assert cleaned_up.is_set()
    assert types(events)[-2:] == ["error", "agent_end"]
    assert types(events).count("tool_start") == types(events).count("tool_end") == 3
    ended = {event.data["tool_name"]: event.data for event in events if event.event_type is END}
    outcomes = {name: data["outcome"] for name, data in ended.items()}
    assert outcomes == {"quick": "success", "broken": "failed", "slow": "cancelled"}
    assert (ended["quick"]["result"], ended["broken"]["error"]) == ("well", "kaputt")
    assert events[-2].data == {"error": "kaputt", "exception_type": "ValueError"}
    assert events[-1].data["success"] is False
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_model_that_fails_fails_the_stream() -> None:
    async def speak() -> AsyncIterator[str]:
        yield "a"
        raise ConnectionError("gone")

    stream = run_stream(Agent(speaking(speak)), "go")
    events = await read_until(ConnectionError, stream)
    assert types(events) == ["agent_start", "llm_chunk", "error", "agent_end"]
    assert stream.result is None
    with pytest.raises(RuntimeError, match="read once"):
        aiter(stream)


async def test_deferred_calls_end_as_deferred() -> None:
    agent = Agent(calling("ask"), output_type=[str, DeferredToolRequests])

    @agent.tool_plain
    def ask(position: int) -> str:
        raise CallDeferred

    result, events = await collect_stream_result(agent, "go")
    assert isinstance(result.output, DeferredToolRequests)
    (ended,) = [event.data for event in events if event.event_type is END]
    assert (ended["outcome"], ended["result"], events[-1].data["success"]) == ("deferred", None, True)


async def test_conversation_continues() -> None:
    async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str]:
        yield str(len(messages))

    agent = Agent(FunctionModel(stream_function=respond))
    first, _ = await collect_stream_result(agent, "hi")
    result, _ = await collect_stream_result(agent, "go", message_history=first.all_messages())
    assert (first.output, result.output) == ("1", "3")
    async with run_stream_with_tools(agent, "on", None, result.all_messages(), emit_progress=False) as stream:
        told = [event async for event in stream]
    assert types(told) == ["agent_start", "llm_chunk", "agent_end"]
    assert (told[1].data["text"], stream.result and stream.result.output) == ("5", "5")


async def test_callbacks_of_both_kinds_get_each_event_as_it_comes() -> None:
    agent = Agent(TestModel(custom_output_text="a b"))
    got: list[StreamEvent] = []

    async def slowly(event: StreamEvent) -> None:
        got.append(event)

    _, events = await collect_stream_result(agent, "go", on_event=slowly)
    assert got == events
    got.clear()
    _, events = await collect_stream_result(agent, "go", on_event=got.append)
    assert got == events
    lines = [json.dumps([event.event_type, event.timestamp.isoformat(), event.data]) for event in events]
    assert json.loads(lines[0])[0] == "agent_start"


async def test_data_is_always_json() -> None:
    agent = Agent(calling("work"))

    @agent.tool_plain
    def work(position: int) -> dict[str, object]:
        return {"at": datetime(2030, 1, 1), "what": {1}, "not": float("nan")}  # noqa: DTZ001

    _, events = await collect_stream_result(agent, "go")
    (result,) = [event.data["result"] for event in events if event.event_type is END]
    assert result == {"at": "2030-01-01T00:00:00", "what": [1], "not": None}
    assert json.dumps([event.data for event in events])


async def test_text_is_seen_as_the_agents_own_capabilities_deliver_it() -> None:
    async def redact(_: object, events: AsyncIterable[AgentStreamEvent]) -> AsyncIterator[AgentStreamEvent]:
        async for event in events:
            if isinstance(event, PartStartEvent):
                yield replace(event, part=TextPart("***"))

    agent = Agent(TestModel(custom_output_text="secret"), capabilities=[ProcessEventStream(redact)])
    assert [chunk async for chunk in stream_text(agent, "go")] == ["***"]


async def test_a_recorded_stream_is_a_run_on_the_server(client: AsyncClient) -> None:
    expert = Agent(TestModel(custom_output_text="very cold"), name="expert")
    agent = Agent(calling("consult"), name="chief")
    heard = []

    @agent.tool_plain
    async def consult(position: int) -> str:
        heard.extend([chunk async for chunk in stream_text(expert, "how is it?", client=client)])
        return "".join(heard)

    result, _ = await collect_stream_result(agent, "go", client=client, run_id="r", labels={"a": "b"})
    assert (result.output, heard) == ("done", ["very ", "cold"])
    run = await client.runs.get("r")
    assert (run.name, run.state, run.labels) == ("chief", RunState.SUCCEEDED, {"a": "b"})
    assert [other.id async for other in client.runs.list()] == ["r"]
    steps = {event.data.step_id: event.data async for event in client.runs.events("r") if event.type == "step_started"}
    (step,) = [step for step in steps.values() if step.name == "expert"]
    assert steps[step.parent_step_id].name == "consult"


def test_events_can_be_made() -> None:
    made = [
        llm_chunk_event(text="Hello"),
        tool_start_event(tool_name="read_file", args={"path": "/tmp/test.txt"}),
        tool_end_event(tool_name="read_file", result="contents", duration_seconds=0.5),
        progress_event(iteration=2, total_tokens=150),
        error_event(error="Something went wrong", exception_type="ValueError"),
        agent_start_event(agent_name="assistant"),
        agent_end_event(agent_name="assistant", total_iterations=3, shade="blue"),
    ]
    assert [event.data for event in made] == [
        {"text": "Hello"},
        {"tool_name": "read_file", "args": {"path": "/tmp/test.txt"}},
        {"tool_name": "read_file", "result": "contents", "duration_seconds": 0.5},
        {"iteration": 2, "total_tokens": 150},
        {"error": "Something went wrong", "exception_type": "ValueError"},
        {"agent_name": "assistant", "prompt": None},
        {
            "agent_name": "assistant",
            "success": True,
            "total_iterations": 3,
            "duration_seconds": 0.0,
            "shade": "blue",
        },
    ]
    assert [event.event_type for event in made] == [
        "llm_chunk",
        "tool_start",
        "tool_end",
        "progress",
        "error",
        "agent_start",
        "agent_end",
    ]
