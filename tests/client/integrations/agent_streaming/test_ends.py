"""Readers of a streamed agent that leave, are cancelled, are slow."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from anyio import wait_all_tasks_blocked
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from lavant.client import AsyncClient, RunState
from lavant.client.integrations.agent_streaming import StreamEvent, StreamEventType, run_stream, stream_tool_calls

CHUNK, START = StreamEventType.LLM_CHUNK, StreamEventType.TOOL_START


async def others_end() -> None:
    """Wait until no task is left but this one."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


class Patient:
    """An agent whose one tool never returns, and the event that it was stopped."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.agent = Agent(TestModel())
        self.agent.tool_plain(self.wait)

    async def wait(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


async def test_leaving_the_loop_stops_the_agent() -> None:
    patient = Patient()
    async for event in run_stream(patient.agent, "go"):
        if event.event_type is START:
            break
    await patient.stopped.wait()
    await others_end()


async def test_leaving_the_block_waits_until_the_agent_has_stopped() -> None:
    patient = Patient()
    async with run_stream(patient.agent, "go") as stream:
        async for event in stream:
            if event.event_type is START:
                break
        assert not patient.stopped.is_set()
    assert patient.stopped.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(RuntimeError, match="read once"):
        aiter(stream)


async def test_leaving_a_stream_of_tool_calls_stops_the_agent() -> None:
    patient = Patient()
    async for _ in stream_tool_calls(patient.agent, "go"):
        break
    await patient.stopped.wait()
    await others_end()


async def test_cancelling_the_reader_stops_the_agent() -> None:
    patient = Patient()

    async def read() -> None:
        async for event in run_stream(patient.agent, "go"):
            if event.event_type is START:
                at_work.set()

    at_work = asyncio.Event()
    reading = asyncio.create_task(read())
    await at_work.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert patient.stopped.is_set()
    await others_end()


async def test_a_stream_that_nobody_reads_runs_nothing() -> None:
    stream = run_stream(Patient().agent, "go")
    assert asyncio.all_tasks() == {asyncio.current_task()}
    del stream
    gc.collect()


async def test_an_awaited_stream_has_begun() -> None:
    agent = Agent(TestModel(custom_output_text="hi"))
    streams = [run_stream(agent, prompt) for prompt in ("a", "b", "c")]
    said = []
    for begun in asyncio.as_completed(streams):
        said.extend([event.data["text"] async for event in await begun if event.event_type is CHUNK])
    assert said == ["hi"] * 3


async def test_the_agent_waits_for_its_reader() -> None:
    spoken = 0

    async def speak(_: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
        nonlocal spoken
        while spoken < 1_000:
            spoken += 1
            yield "x"

    async with run_stream(Agent(FunctionModel(stream_function=speak)), "go") as stream:
        while (await anext(stream)).event_type is not CHUNK:
            pass
        await wait_all_tasks_blocked()
        assert spoken <= 4
        assert "agent_end" in [event.event_type async for event in stream]
    assert spoken == 1_000


async def test_a_recorded_stream_that_is_left_is_a_cancelled_run(client: AsyncClient) -> None:
    patient = Patient()
    async with run_stream(patient.agent, "go", client=client, run_id="r") as stream:
        async for event in stream:
            if event.event_type is START:
                break
    assert (await client.runs.get("r")).state is RunState.CANCELLED
    with pytest.raises(ValueError, match="need a client"):
        run_stream(patient.agent, "go", run_id="r")


async def test_reader_with_a_time_limit_stops_the_agent() -> None:
    patient = Patient()

    async def read() -> None:
        async with asyncio.timeout(None) as limit:
            async for event in run_stream(patient.agent, "go"):
                if event.event_type is START:
                    limit.reschedule(0)

    with pytest.raises(TimeoutError):
        await read()
    assert patient.stopped.is_set()
    await others_end()


async def test_a_queue_between_agent_and_consumer() -> None:
    agent = Agent(TestModel(custom_output_text="one two three"))
    queue: asyncio.Queue[StreamEvent | None] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        async for event in run_stream(agent, "go"):
            await queue.put(event)
        await queue.put(None)

    async def consume() -> list[str]:
        said = []
        while (event := await queue.get()) is not None:
            if event.event_type is CHUNK:
                said.append(event.data["text"])
        return said

    _, said = await asyncio.gather(produce(), consume())
    assert said == ["one ", "two ", "three"]
