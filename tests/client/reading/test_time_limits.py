"""Time limits hold whatever becomes of the server: in both clients, and when no packet comes or goes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest

from lavant.client import (
    AsyncClient,
    Client,
    IdleTimeout,
    LavantError,
    RunState,
    StreamCut,
    StreamTimeout,
    Unavailable,
    WaitTimeout,
)
from lavant.client._async.concurrency import Clock
from support.calls import append, create
from support.events import message_started, run_finished, run_started, text_delta
from support.proxy import Proxy
from support.server import Server, ServerProcess, connected

LIMIT = 1.0
LATE = 0.9  # seconds that a loaded machine may take; what was wrong took ten and more
BEGUN = [run_started(), message_started()]
GONE = [Proxy.vanish, Proxy.stall, Proxy.black_hole]
LIMITS: dict[str, type[LavantError]] = {"timeout": StreamTimeout, "idle_timeout": IdleTimeout}
gone = pytest.mark.parametrize("gone", GONE)


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A way to a server with a run that has begun, which a test may close."""
    await create(server.stubs)
    await append(server.stubs, BEGUN)
    async with Proxy(server.target, Random(1)) as opened:
        yield opened


class Stopwatch:
    """Fails if a block takes other than the limit."""

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        assert LIMIT - 0.1 < time.monotonic() - self._began < LIMIT + LATE


@gone
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_streams(proxy: Proxy, gone: Callable[[Proxy], None], limit: str) -> None:
    async with AsyncClient(proxy.target) as client:
        await client.runs.get("run")  # connects, which the limit need not cover
        with Stopwatch():
            stream = client.runs.stream("run", **{limit: LIMIT})  # type: ignore[arg-type]
            for _ in BEGUN:
                await anext(stream)
            gone(proxy)
            with pytest.raises(LIMITS[limit]):
                await anext(stream)


@gone
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_blocking_streams(proxy: Proxy, gone: Callable[[Proxy], None], limit: str) -> None:
    with Client(proxy.target) as client:
        await asyncio.to_thread(client.runs.get, "run")
        with Stopwatch():
            stream = client.runs.stream("run", **{limit: LIMIT})  # type: ignore[arg-type]
            for _ in BEGUN:
                await asyncio.to_thread(next, stream)
            gone(proxy)
            with pytest.raises(LIMITS[limit]):
                await asyncio.to_thread(next, stream)


@gone
async def test_a_wait(proxy: Proxy, gone: Callable[[Proxy], None]) -> None:
    async with AsyncClient(proxy.target) as client:
        await client.runs.get("run")
        gone(proxy)
        with Stopwatch(), pytest.raises(WaitTimeout, match="out of reach"):
            await client.runs.wait("run", timeout=LIMIT)


@gone
async def test_a_blocking_wait(proxy: Proxy, gone: Callable[[Proxy], None]) -> None:
    with Client(proxy.target) as client:
        await asyncio.to_thread(client.runs.get, "run")
        gone(proxy)
        with Stopwatch(), pytest.raises(WaitTimeout, match="out of reach"):
            await asyncio.to_thread(client.runs.wait, "run", LIMIT)


def cut_and_stall(proxy: Proxy) -> None:
    proxy.stall()
    proxy.cut()


async def test_the_time_to_resume(proxy: Proxy) -> None:
    async with AsyncClient(proxy.target) as client:
        stream = client.runs.stream("run", reconnect_timeout=LIMIT)
        for _ in BEGUN:
            await anext(stream)
        cut_and_stall(proxy)
        with Stopwatch(), pytest.raises(StreamCut):
            await anext(stream)


async def test_the_time_to_resume_of_a_blocking_stream(proxy: Proxy) -> None:
    with Client(proxy.target) as client:
        stream = client.runs.stream("run", reconnect_timeout=LIMIT)
        for _ in BEGUN:
            await asyncio.to_thread(next, stream)
        cut_and_stall(proxy)
        with Stopwatch(), pytest.raises(StreamCut):
            await asyncio.to_thread(next, stream)


@pytest.mark.parametrize("gone", [Proxy.stall, Proxy.black_hole])
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_result_that_is_asked_for_behind_the_stream(
    proxy: Proxy, gone: Callable[[Proxy], None], limit: str
) -> None:
    async with AsyncClient(proxy.target) as client:
        stream = client.runs.stream("run", stop="head", **{limit: LIMIT})  # type: ignore[arg-type]
        assert len([event async for event in stream]) == len(BEGUN)
        gone(proxy)
        with Stopwatch(), pytest.raises(LIMITS[limit]):
            await stream.result()


class Skewed(Clock):
    """A clock that a test may set forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


async def test_reading_again_has_the_time_that_is_left(server: Server, client: AsyncClient) -> None:
    await create(server.stubs)
    await append(server.stubs, [*BEGUN, text_delta("cold"), run_finished()])
    clock = client._connection.clock = Skewed()
    for ahead, whole in ((59.0, True), (61.0, False)):
        stream = client.runs.stream("run", timeout=60)
        assert len([event async for event in stream]) == len(BEGUN) + 2
        clock.ahead += ahead
        if whole:
            assert await stream.text() == "cold"
        else:
            with pytest.raises(StreamTimeout):
                await stream.text()


async def test_without_a_limit_a_wait_gives_up_with_the_clients_own(proxy: Proxy) -> None:
    async with AsyncClient(proxy.target, timeout=0.3) as client:
        await client.runs.get("run")
        proxy.vanish()
        with pytest.raises(Unavailable):
            await client.runs.wait("run")


async def test_a_wait_outlasts_the_server(server_process: ServerProcess, process_client: AsyncClient) -> None:
    async with connected(server_process.target) as stubs:
        await create(stubs)
        await append(stubs, BEGUN)
    waiting = asyncio.ensure_future(process_client.runs.wait("run", timeout=20))
    with pytest.raises(WaitTimeout, match="is running after"):
        await process_client.runs.wait("run", timeout=0.1)
    await server_process.restart()
    async with connected(server_process.target) as stubs:
        await append(stubs, [run_finished()], first=len(BEGUN) + 1)
    assert (await waiting).state is RunState.SUCCEEDED
