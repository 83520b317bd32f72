"""A reader that stops early releases its consumer's lease and leaves nothing open."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from lavant.client import AsyncClient, ConsumerBusy
from support.calls import PATIENCE, append, create, until
from support.events import message_started, run_started, text_delta, tool_call_finished, tool_call_started
from support.server import ServerProcess, connected

Reached = Callable[[], Awaitable[bool]]
Read = Callable[[Reached], Awaitable[None]]
LIMIT = 1.0  # seconds: a lease that is not released lasts fifteen
RECORDED = [run_started(), message_started(), text_delta(), tool_call_started(), tool_call_finished()]


class Left(Exception):
    """Leaves a loop."""


async def in_a_block(client: AsyncClient, reached: Reached) -> None:
    async with client.runs.stream("run", consumer="ui") as stream:
        async for _ in stream:
            if await reached():
                break


async def bare(client: AsyncClient, reached: Reached) -> None:
    async for _ in client.runs.stream("run", consumer="ui"):
        if await reached():
            break


async def by_text(client: AsyncClient, reached: Reached) -> None:
    async for _ in client.runs.stream("run", consumer="ui").text_chunks:
        if await reached():
            break


async def by_tool_calls(client: AsyncClient, reached: Reached) -> None:
    async for _ in client.runs.stream("run", consumer="ui").tool_calls:
        if await reached():
            break


FORMS = [in_a_block, bare, by_text, by_tool_calls]


async def by_break(read: Read) -> None:
    async def reached() -> bool:
        return True

    await read(reached)


async def by_exception(read: Read) -> None:
    async def reached() -> bool:
        raise Left

    with pytest.raises(Left):
        await read(reached)


async def by_cancellation_in_the_body(read: Read) -> None:
    there = asyncio.Event()

    async def reached() -> bool:
        there.set()
        return await asyncio.Event().wait()

    await _cancelled(asyncio.ensure_future(read(reached)), there)


async def by_cancellation_while_it_waits(read: Read) -> None:
    there = asyncio.Event()

    async def reached() -> bool:
        there.set()
        return False

    await _cancelled(asyncio.ensure_future(read(reached)), there)


WAYS = [by_break, by_exception, by_cancellation_in_the_body, by_cancellation_while_it_waits]


async def _cancelled(task: "asyncio.Future[None]", there: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await there.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
async def leaver(server_process: ServerProcess) -> AsyncIterator[AsyncClient]:
    """A client of a server in another process: what is left behind here is the client's."""
    async with AsyncClient(server_process.target) as opened:
        yield opened


@pytest.fixture
async def rival(server_process: ServerProcess) -> AsyncIterator[AsyncClient]:
    """Another client, with sessions of its own."""
    async with AsyncClient(server_process.target) as opened:
        yield opened


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
async def test_the_place_is_free_for_a_rival(
    server_process: ServerProcess,
    leaver: AsyncClient,
    rival: AsyncClient,
    form: Callable[[AsyncClient, Reached], Awaitable[None]],
    way: Callable[[Read], Awaitable[None]],
) -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with connected(server_process.target) as stubs:
        await create(stubs)
        await append(stubs, RECORDED)
    await opens(rival)
    await opens(leaver)
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())

    await way(lambda reached: form(leaver, reached))
    await opens(rival, LIMIT)

    await until(lambda: asyncio.all_tasks() <= tasks)
    assert set(threading.enumerate()) <= threads
    gc.collect()
    await asyncio.sleep(0)
    assert said == []


async def opens(client: AsyncClient, limit: float = PATIENCE) -> None:
    """Acquire the consumer's lease as soon as it is free, and release it."""
    async with asyncio.timeout(limit):
        while True:
            try:
                async with client.runs.stream("run", consumer="ui") as stream:
                    await anext(stream)
                    return
            except ConsumerBusy:
                continue
