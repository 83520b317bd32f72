"""A stream that is read twice replays; two readers at once raise StreamInUse."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lavant.client import AsyncClient, AsyncRunStream, Client, RunStream, StreamCut, StreamInUse

RUN = "r"


@pytest.fixture
async def whole(client: AsyncClient) -> AsyncClient:
    """A client, and a run that has ended."""
    async with client.runs.start("agent", run_id=RUN) as run:
        async with run.step("plan"), run.tool("search", {"q": "x"}) as tool:
            tool.result = 1
        await run.progress("pages", 1, 2)
        await run.text("It is ")
        await run.text("cold.")
        run.output = "cold"
    return client


async def everything(values: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in values]


ASYNC_READINGS: dict[str, Callable[[AsyncRunStream], Any]] = {
    "loop": lambda stream: everything(aiter(stream)),
    "events": lambda stream: everything(aiter(stream.events)),
    "text_chunks": lambda stream: everything(stream.text_chunks),
    "nested_chunks": lambda stream: everything(stream.text_chunks(nested=True)),
    "tool_calls": lambda stream: everything(stream.tool_calls),
    "steps": lambda stream: everything(stream.steps),
    "progress": lambda stream: everything(stream.progress),
    "text": lambda stream: stream.text(),
    "nested_text": lambda stream: stream.text(nested=True),
    "result": lambda stream: stream.result(),
    "collect": lambda stream: stream.collect(),
}
SYNC_READINGS: dict[str, Callable[[RunStream], Any]] = {
    "loop": list,
    "events": lambda stream: list(stream.events),
    "text_chunks": lambda stream: list(stream.text_chunks),
    "nested_chunks": lambda stream: list(stream.text_chunks(nested=True)),
    "tool_calls": lambda stream: list(stream.tool_calls),
    "steps": lambda stream: list(stream.steps),
    "progress": lambda stream: list(stream.progress),
    "text": lambda stream: stream.text(),
    "nested_text": lambda stream: stream.text(nested=True),
    "result": lambda stream: stream.result(),
    "collect": lambda stream: stream.collect(),
}


@pytest.mark.parametrize("name", ASYNC_READINGS)
async def test_a_stream_that_was_read_replays(whole: AsyncClient, name: str) -> None:
    read, first = ASYNC_READINGS[name], await ASYNC_READINGS[name](whole.runs.stream(RUN))
    assert first
    for before in ASYNC_READINGS.values():
        stream = whole.runs.stream(RUN, consumer="ui", start="beginning")
        await before(stream)
        assert await read(stream) == first
        assert await read(stream) == first
        assert stream.last_sequence == len(await everything(aiter(whole.runs.stream(RUN))))


@pytest.mark.parametrize("name", SYNC_READINGS)
async def test_a_blocking_stream_that_was_read_replays(whole: AsyncClient, name: str) -> None:
    read = SYNC_READINGS[name]

    def compare() -> None:
        with Client(whole.target) as client:
            first = read(client.runs.stream(RUN))
            assert first
            for before in SYNC_READINGS.values():
                stream = client.runs.stream(RUN)
                before(stream)
                assert read(stream) == first

    await asyncio.to_thread(compare)


async def test_a_loop_goes_on_where_the_last_one_was_left(whole: AsyncClient) -> None:
    stream = whole.runs.stream(RUN)
    async for event in stream:
        if event.type == "tool_call_finished":
            break
    async for chunk in stream.text_chunks:
        assert chunk == "It is "
        break
    rest = [event.type async for event in stream]
    assert rest[0] == "text_delta"
    assert rest[-1] == "run_finished"
    assert (await stream.collect()).tool_calls[0].result == 1


async def test_a_stream_that_was_closed_before_its_end_is_not_read_again(whole: AsyncClient) -> None:
    stream = whole.runs.stream(RUN)
    await anext(stream)
    await stream.aclose()
    with pytest.raises(StreamCut):
        await stream.text()


async def test_a_second_task_gets_stream_in_use(whole: AsyncClient) -> None:
    stream = whole.runs.stream(RUN)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> list[str]:
        types: list[str] = []
        async for event in stream:
            types.append(event.type)
            begun.set()
            await go_on.wait()
        return types

    reading = asyncio.create_task(slow())
    await begun.wait()
    for name in ("loop", "text_chunks", "text", "collect", "result"):
        with pytest.raises(StreamInUse, match="open one stream per reader"):
            await ASYNC_READINGS[name](stream)
    with pytest.raises(StreamInUse):
        await anext(stream)
    go_on.set()
    types = await reading
    assert (types[0], types[-1]) == ("run_started", "run_finished")
    assert len(types) == stream.last_sequence


async def test_two_tasks_that_wait_for_one_stream(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.flush()
        stream = client.runs.stream(run.id)
        assert (await anext(stream)).type == "run_started"
        first = asyncio.create_task(stream.text())
        await asyncio.sleep(0)
        with pytest.raises(StreamInUse):
            await stream.text()
        await run.text("cold")
    assert await first == "cold"


async def test_a_stream_can_be_handed_to_another_task(whole: AsyncClient) -> None:
    stream = whole.runs.stream(RUN)
    first = await anext(stream)
    rest = await asyncio.create_task(everything(aiter(stream)))
    assert [event.sequence for event in [first, *rest]] == [*range(1, stream.last_sequence + 1)]


async def test_loops_of_one_task_may_nest(whole: AsyncClient) -> None:
    stream, types = whole.runs.stream(RUN), []
    async for event in stream:
        types.append(event.type)
        if event.type == "tool_call_started":
            async for inner in stream:
                types.append(inner.type)
                if inner.type == "tool_call_finished":
                    break
    assert len(types) == stream.last_sequence


async def test_a_second_thread_gets_stream_in_use(whole: AsyncClient) -> None:
    def read() -> None:
        with Client(whole.target) as client:
            stream, told = client.runs.stream(RUN), []

            def rival() -> None:
                try:
                    list(stream)
                except StreamInUse as error:
                    told.append(error)

            count = 0
            for _ in stream:
                count += 1
                if count == 1:
                    thread = threading.Thread(target=rival)
                    thread.start()
                    thread.join()
            assert len(told) == 1
            assert count == stream.last_sequence

    await asyncio.to_thread(read)


async def test_an_evaluations_stream_replays_and_has_one_reader(client: AsyncClient) -> None:
    async with client.runs.start("rows", kind="evaluation", run_id=RUN) as run:
        await run.progress("rows", 1, 2)
    stream = client.evaluations.stream(RUN)
    first = await everything(aiter(stream))
    assert [event.type for event in first][-1] == "final"
    assert await everything(aiter(stream)) == first
    other = client.evaluations.stream(RUN)
    async for _ in other:
        with pytest.raises(StreamInUse):
            await asyncio.create_task(everything(aiter(other)))
        break


async def test_the_run_of_a_stream_is_known_once_it_exists(client: AsyncClient) -> None:
    stream = client.runs.stream(RUN, wait_for_run=True)
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    assert stream.run is None
    async with client.runs.start("agent", run_id=RUN):
        await reading
        assert stream.run is not None
        assert (stream.run.id, stream.run.name) == (RUN, "agent")


async def test_misuse_of_asynchronous_and_blocking_objects_says_what_to_use(client: AsyncClient) -> None:
    stream: Any = client.runs.stream(RUN)
    with pytest.raises(TypeError, match="AsyncRunStream cannot be used with `for`: use `async for`"):
        list(stream)
    with pytest.raises(TypeError, match="cannot be used with `await`"):
        await stream
    asynchronous: Any = AsyncClient(client.target)
    with pytest.raises(TypeError, match="AsyncClient cannot be used with `with`: use `async with`"), asynchronous:
        pass
    started: Any = client.runs.start("agent")
    with pytest.raises(TypeError, match="use `async with`"), started:
        pass
    blocking: Any = Client(client.target)
    with pytest.raises(TypeError, match="Client cannot be used with `async with`: use `with`"):
        async with blocking:
            pass
    with pytest.raises(TypeError, match="RunStream cannot be used with `async for`: use `for`"):
        await everything(blocking.runs.stream(RUN))
    blocking.close()
