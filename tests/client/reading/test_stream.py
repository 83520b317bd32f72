"""Reading, against a real server."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from lavant.client import (
    AsyncClient,
    AsyncRunProducer,
    AsyncRunStream,
    ConsumerBusy,
    IdleTimeout,
    ResumeTokenInvalid,
    RunNotEnded,
    RunResult,
    RunState,
    StreamCut,
    StreamDisplaced,
    StreamTimeout,
    ToolCallOutcome,
)
from support.server import ServerProcess


@asynccontextmanager
async def weather(client: AsyncClient) -> AsyncIterator[AsyncRunProducer]:
    async with client.runs.start("weather") as run:
        await run.text("It is ")
        async with run.tool("search", {"q": "Oslo"}) as tool:
            tool.result = ["cold"]
        await run.text("cold.")
        run.output = "cold"
        yield run


async def weather_id(client: AsyncClient) -> str:
    async with weather(client) as run:
        pass
    return run.id


async def waiting_reader(client: AsyncClient) -> tuple[AsyncRunStream, asyncio.Task[RunResult]]:
    """A reader of a run of which nothing comes any more."""
    run = await client.runs.create("agent")
    stream = client.runs.stream(run.id, reconnect_timeout=0.2)
    reading = asyncio.create_task(stream.result())
    async with client.runs.stream(run.id, idle_timeout=0.05) as other:
        with pytest.raises(IdleTimeout):
            await anext(other)
    return stream, reading


async def test_all_views_of_a_run(client: AsyncClient) -> None:
    run_id = await weather_id(client)
    assert await client.runs.stream(run_id).text() == "It is cold."
    assert [chunk async for chunk in client.runs.stream(run_id).text_chunks] == ["It is ", "cold."]
    (call,) = [call async for call in client.runs.stream(run_id).tool_calls]
    assert (call.name, call.arguments, call.result) == ("search", {"q": "Oslo"}, ["cold"])
    assert call.outcome is ToolCallOutcome.SUCCEEDED
    result = await client.runs.stream(run_id).result()
    assert (result.state, result.output) == (RunState.SUCCEEDED, "cold")


async def test_filters(client: AsyncClient) -> None:
    run_id = await weather_id(client)
    stream = client.runs.stream(run_id, types=["text_delta"])
    assert [event.type async for event in stream] == ["text_delta", "text_delta"]
    assert (await stream.result()).output == "cold"
    assert await client.runs.stream(run_id, deltas="none").text() == "It is cold."


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"types": ["nonsense"]}, ValueError, "types must be one of run_started, .*, not 'nonsense'"),
        ({"types": "text_delta"}, ValueError, "types must be several names, not one string"),
        ({"deltas": "some"}, ValueError, "deltas must be one of all, merged, none, not 'some'"),
        ({"start": ["now"]}, ValueError, "start must be one of beginning, now, not \\['now'\\]"),
        ({"stop": None}, ValueError, "stop must be one of run_finished, head, not None"),
        ({"heartbeat_interval": 0.5}, ValueError, "heartbeat_interval must be 1 to 60 seconds, not 0.5"),
        ({"heartbeat_interval": 61}, ValueError, "heartbeat_interval must be 1 to 60 seconds, not 61"),
        ({"heartbeat_interval": math.nan}, ValueError, "heartbeat_interval must be a number of seconds, not nan"),
        ({"timeout": "30"}, TypeError, "timeout must be a number of seconds, not '30'"),
        ({"timeout": timedelta(1)}, TypeError, "timeout must be a number of seconds, not datetime.timedelta"),
        ({"idle_timeout": -1}, ValueError, "idle_timeout must be a number of seconds, not -1"),
        ({"reconnect_timeout": math.inf}, ValueError, "reconnect_timeout must be a number of seconds, not inf"),
    ],
)
async def test_arguments_are_checked_at_once(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    async with AsyncClient("localhost:1") as nowhere:
        with pytest.raises(kind, match=message):
            nowhere.runs.stream("r", **arguments)


async def test_the_arguments_of_other_calls_are_checked_too() -> None:
    async with AsyncClient("localhost:1") as nowhere:
        with pytest.raises(ValueError, match="kind must be one of agent, evaluation, not 'robot'"):
            nowhere.runs.start("a", kind="robot", on_error="raise")
        with pytest.raises(TypeError, match="producer_timeout must be a number of seconds, not '1'"):
            nowhere.runs.start("a", producer_timeout="1", on_error="raise")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout must be a number of seconds, not nan"):
            await nowhere.runs.wait("r", math.nan)
    with pytest.raises(ValueError, match="timeout must be a number of seconds, not -1"):
        AsyncClient(timeout=-1)


async def test_text_is_all_that_was_handed_out(client: AsyncClient) -> None:
    run_id = await weather_id(client)
    async with client.runs.stream(run_id) as stream:
        async for _ in stream:
            pass
    assert await stream.text() == "It is cold."
    assert await stream.text() == "It is cold."
    begun = client.runs.stream(run_id)
    assert [await anext(begun) for _ in range(3)][-1].type == "text_delta"
    assert await begun.text() == "It is cold."


async def test_a_stream_up_to_the_head_ends_before_the_run(client: AsyncClient) -> None:
    async with weather(client) as run:
        await run.flush()
        stream = client.runs.stream(run.id, stop="head")
        assert len([event async for event in stream]) == 8
        with pytest.raises(RunNotEnded):
            await stream.result()


async def test_the_token_continues_within_a_frame(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        for number in range(98):
            await run.custom("a.b", number)
    token = ""
    seen: list[int] = []
    lasts: list[int] = []
    while len(seen) < 100:
        async with client.runs.stream(run.id, resume_token=token) as stream:
            seen += [(await anext(stream)).sequence for _ in range(10)]
        token = stream.resume_token
        lasts.append(seen[-1])
    assert lasts == [*range(10, 101, 10)]
    assert seen == [*range(1, 101)]


@pytest.mark.parametrize("cut", range(1, 11))
async def test_no_event_is_skipped_wherever_a_reader_stops(client: AsyncClient, cut: int) -> None:
    async with weather(client) as run:
        await run.flush()
        stream = client.runs.stream(run.id)
        seen: list[int] = []
        while len(seen) < min(cut, 8):
            seen.append((await anext(stream)).sequence)
        await stream.aclose()
    token = stream.resume_token
    seen += [event.sequence async for event in client.runs.stream(run.id, resume_token=token)]
    assert seen == [*range(1, 11)]


async def test_tokens_are_checked(client: AsyncClient) -> None:
    run_id = await weather_id(client)
    with pytest.raises(ResumeTokenInvalid):
        await client.runs.stream(run_id, resume_token="forged").result()


async def test_one_stream_per_consumer(client: AsyncClient) -> None:
    async with weather(client) as run:
        async with client.runs.stream(run.id, consumer="ui") as first:
            await anext(first)
            with pytest.raises(ConsumerBusy) as busy:
                await anext(client.runs.stream(run.id, consumer="ui"))
            assert busy.value.retry_after is not None
            second = client.runs.stream(run.id, consumer="ui", take_over=True)
            await anext(second)
            with pytest.raises(StreamDisplaced):
                await first.result()
        await second.aclose()
        await run.custom("a.b")
        async with client.runs.stream(run.id, consumer="ui", idle_timeout=10) as third:
            await anext(third)


async def test_time_limits(client: AsyncClient) -> None:
    run = await client.runs.create("agent")
    with pytest.raises(StreamTimeout):
        await client.runs.stream(run.id, timeout=0.05).result()
    with pytest.raises(IdleTimeout):
        await client.runs.stream(run.id, idle_timeout=0.05).result()
    with pytest.raises(TimeoutError):
        await client.runs.stream("later", wait_for_run=True, timeout=0.05).result()


async def test_waiting_for_a_run_to_be_created(client: AsyncClient) -> None:
    reading = asyncio.create_task(client.runs.stream("later", wait_for_run=True).result())
    async with client.runs.start("agent", run_id="later") as run:
        run.output = 1
    assert (await reading).output == 1


async def test_closing_frees_a_reader_that_waits(client: AsyncClient) -> None:
    stream, reading = await waiting_reader(client)
    await stream.aclose()
    with pytest.raises(StreamCut):
        await reading


async def test_cancelling_a_reader_is_a_cancellation(client: AsyncClient) -> None:
    _, reading = await waiting_reader(client)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_reader_survives_the_server(server_process: ServerProcess, process_client: AsyncClient) -> None:
    sequences: list[int] = []
    halfway = asyncio.Event()

    async def read() -> None:
        async for event in process_client.runs.stream("r", wait_for_run=True):
            sequences.append(event.sequence)
            if event.sequence == 500:
                halfway.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        async with process_client.runs.start("agent", run_id="r") as run:
            for number in range(500):
                await run.custom("a.b", number)
            await halfway.wait()
            await server_process.restart()
            for number in range(500):
                await run.custom("a.b", number)
    assert sequences == [*range(1, 1_003)]


async def test_a_stream_that_cannot_be_resumed_is_cut(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    _, reading = await waiting_reader(process_client)
    await server_process.kill()
    with pytest.raises(StreamCut):
        await reading
