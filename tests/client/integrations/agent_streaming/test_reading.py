"""Streams of agents in their own process: who may read them, how often, and what they show of the run."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from lavant.client import AsyncClient
from lavant.client.integrations.agent_streaming import (
    collect_stream_result,
    run_stream,
    run_stream_with_tools,
    stream_text,
    stream_tool_calls,
)
from support.pydantic_ai import RateLimited, call, scripted


def looking_agent() -> Agent[None, str]:
    agent = Agent(scripted(["I look. ", call(0, "look"), call(1, "look")], ["It is cold."]), deps_type=type(None))

    @agent.tool_plain
    def look() -> str:
        return "-3 C"

    return agent


STREAMS: dict[str, Callable[..., AsyncIterator[Any]]] = {
    "events": run_stream,
    "events with tools": run_stream_with_tools,
    "texts": stream_text,
    "tool calls": stream_tool_calls,
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_was_read_raises_when_it_is_read_again(name: str) -> None:
    stream = STREAMS[name](looking_agent(), "go", None)
    assert len([item async for item in stream]) > 1
    with pytest.raises(RuntimeError, match="read once; call the function again"):
        [item async for item in stream]
    assert [item async for item in STREAMS[name](looking_agent(), "go", None)]


@pytest.mark.parametrize("name", STREAMS)
async def test_second_reader_is_refused_and_the_first_continues(name: str) -> None:
    at_work, may_return = asyncio.Event(), asyncio.Event()
    agent = Agent(TestModel(custom_output_text="It is cold."), deps_type=type(None))

    @agent.tool_plain
    async def look() -> None:
        at_work.set()
        await may_return.wait()

    stream = STREAMS[name](agent, "go", None)
    got: list[object] = []

    async def read() -> None:
        got.extend([item async for item in stream])

    first = asyncio.create_task(read())
    await at_work.wait()
    await wait_all_tasks_blocked()
    with pytest.raises(RuntimeError, match="one reader"):
        await anext(stream)
    may_return.set()
    await first
    assert len(got) > 1


async def test_a_loop_that_was_left_may_be_continued() -> None:
    stream = run_stream(looking_agent(), "go")
    async for event in stream:
        if event.event_type == "tool_start":
            break
    assert [event.event_type async for event in stream][-1] == "agent_end"


async def test_a_closed_stream_cannot_be_read() -> None:
    stream = stream_text(looking_agent(), "go")
    assert await anext(stream) == "I look. "
    await stream.aclose()
    with pytest.raises(RuntimeError, match="read or closed"):
        [text async for text in stream]


async def test_the_run_of_a_recorded_stream_is_known_once_it_has_begun(client: AsyncClient) -> None:
    async with run_stream(looking_agent(), "go", client=client, run_id="r") as stream:
        known = [stream.run.id if stream.run else None async for _ in stream]
    assert (known[0], set(known[2:])) == (None, {"r"})
    async with run_stream(looking_agent(), "go") as unrecorded:
        assert [event async for event in unrecorded]
    assert unrecorded.run is None


async def test_calls_with_one_id_are_paired_in_order() -> None:
    turns = [[call(0, "look", json.dumps({"q": number}), "c")] for number in (0, 1)]
    agent = Agent(scripted(*turns, ["done"]))

    @agent.tool_plain
    def look(q: int) -> int:
        return q

    _, events = await collect_stream_result(agent, "go")
    ended = [event.data["result"] for event in events if event.event_type == "tool_end"]
    assert ended == [0, 1]
    assert [event.data["args"]["q"] for event in events if event.event_type == "tool_start"] == [0, 1]


async def test_a_streamed_agent_recovers_from_errors_as_one_that_runs() -> None:
    from client.integrations.pydantic_ai.test_failures import Recovering

    result, events = await collect_stream_result(
        Agent(RateLimited(scripted()), deps_type=type(None), capabilities=[Recovering()]), "go"
    )
    assert result.output == "recovered"
    assert [event.data["text"] for event in events if event.event_type == "llm_chunk"] == ["recovered"]
