"""One client and several event loops: the first one has it, and once that is closed, the next one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from lavant.client import AsyncClient, Client, RunState
from support.server import ServerProcess


@pytest.fixture
def module_client(server_process: ServerProcess) -> Iterator[AsyncClient]:
    """A client that is made where no event loop runs, and never closed."""
    client: list[AsyncClient] = []
    thread = threading.Thread(target=lambda: client.append(AsyncClient(server_process.target)))
    thread.start()
    thread.join()
    yield client[0]
    client.clear()


def in_a_loop(work: Callable[[], Awaitable[object]]) -> object:
    """Run something in an event loop of its own, in a thread of its own, and close that loop."""
    outcome: list[object] = []

    async def run() -> object:
        return await work()

    thread = threading.Thread(target=lambda: outcome.append(asyncio.run(run())))
    thread.start()
    thread.join()
    return outcome[0]


def test_a_client_made_outside_of_a_loop_is_used_in_one_after_the_other(module_client: AsyncClient) -> None:
    async def work() -> RunState:
        async with module_client.runs.start("agent") as run:
            await run.text("said")
        assert await module_client.runs.stream(run.id).text() == "said"
        return (await module_client.runs.get(run.id)).state

    assert [in_a_loop(work) for _ in range(3)] == [RunState.SUCCEEDED] * 3


async def test_in_another_loop_reading_raises_and_recording_is_logged_once(
    server_process: ServerProcess, process_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await process_client.runs.create("first", run_id="first")

    async def read() -> str:
        try:
            await process_client.runs.get("first")
        except RuntimeError as error:
            return str(error)
        return ""

    async def stream() -> str:
        try:
            await process_client.runs.stream("first").text()
        except RuntimeError as error:
            return str(error)
        return ""

    async def strict() -> str:
        try:
            async with process_client.runs.start("agent", on_error="raise"):
                return ""
        except RuntimeError as error:
            return str(error)

    async def record() -> str:
        for _ in range(2):
            async with process_client.runs.start("agent") as run, run.step("plan"), run.tool("search"):
                await run.text("not recorded")
                assert not await run.flush()
        return "went on"

    for misuse in (read, stream, strict):
        said = await asyncio.to_thread(in_a_loop, misuse)
        assert "another event loop: create one AsyncClient per event loop" in str(said)
    assert await asyncio.to_thread(in_a_loop, record) == "went on"
    assert len(caplog.records) == 1
    assert (await process_client.runs.get("first")).id == "first"


def test_where_no_loop_runs_nothing_raises(module_client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    run = module_client.runs.start("agent").begin()
    run.end()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "no event loop is running: AsyncClient needs one" in said


def test_a_run_goes_on_in_the_next_loop_when_its_own_is_closed(
    server_process: ServerProcess, module_client: AsyncClient
) -> None:
    run = module_client.runs.start("agent", run_id="run")

    async def begin() -> None:
        run.begin()
        await run.text("before, ")

    async def end() -> bool:
        await run.text("after")
        run.end()
        return await run.flush(10)

    in_a_loop(begin)
    assert in_a_loop(end)
    with Client(server_process.target) as client:
        assert client.runs.get("run").state is RunState.SUCCEEDED
        assert client.runs.stream("run").text() == "before, after"


def test_what_is_queued_when_the_event_loop_ends_is_still_sent(
    server_process: ServerProcess, module_client: AsyncClient
) -> None:
    async def leave() -> None:
        run = module_client.runs.start("agent", run_id="run").begin()
        await run.text("said")
        run.end()

    in_a_loop(leave)
    with Client(server_process.target) as client:
        assert client.runs.get("run").state is RunState.SUCCEEDED


async def test_the_wrong_kind_of_block_is_named(process_client: AsyncClient, server_process: ServerProcess) -> None:
    run = process_client.runs.start("agent")
    blocks: list[Any] = [process_client, run, run.step("plan"), run.tool("search"), run.message()]
    for block in blocks:
        with pytest.raises(TypeError, match="cannot be used with `with`: use `async with`"), block:
            pass
    with Client(server_process.target) as blocking:
        blocks = [blocking, blocking.runs.start("agent"), blocking.runs.start("agent").step("plan")]
        for block in blocks:
            with pytest.raises(TypeError, match="cannot be used with `async with`: use `with`"):
                async with block:
                    pass
