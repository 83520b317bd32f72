"""A connection that dies without a word is noticed by its silence, and what follows goes over another one."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from lavant.client import AsyncClient, Client, RunState
from lavant.client._async import transport as async_transport
from lavant.client._async.api import runs as async_runs
from lavant.client._sync import transport
from support.calls import append, create, until
from support.events import message_started, run_finished, run_started, text_delta
from support.proxy import Proxy
from support.server import Server
from support.silence import AsyncSilence, Silence
from support.streams import recorded

HEARTBEATS = 45.0  # seconds: three that are missed
BEGUN = [run_started(), message_started(), text_delta()]


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A way to the server that can become a black hole."""
    async with Proxy(server.target, Random(1)) as opened:
        yield opened


@pytest.fixture
async def silence() -> AsyncSilence:
    """What the client's time is."""
    return AsyncSilence()


@pytest.fixture
async def far(proxy: Proxy, silence: AsyncSilence) -> AsyncIterator[AsyncClient]:
    """A client behind the proxy."""
    async with AsyncClient(proxy.target) as opened:
        opened._connection.clock = silence
        yield opened


@pytest.fixture
def blocking_silence() -> Silence:
    """What the blocking client's time is."""
    return Silence()


@pytest.fixture
async def blocking(proxy: Proxy, blocking_silence: Silence) -> AsyncIterator[Client]:
    """A blocking client behind the proxy."""
    with Client(proxy.target) as opened:
        opened._connection.clock = blocking_silence
        yield opened


async def begun(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, BEGUN)


async def test_three_missed_heartbeats_without_a_clock_of_the_tests(server: Server, proxy: Proxy) -> None:
    await begun(server)
    async with AsyncClient(proxy.target) as client:
        stream = client.runs.stream("run", consumer="ui", heartbeat_interval=1.0)
        assert [(await anext(stream)).sequence for _ in BEGUN] == [1, 2, 3]
        proxy.black_hole()
        await append(server.stubs, [run_finished()], first=4)
        assert [event.sequence async for event in stream] == [4]
    assert proxy.connections == 2


async def test_a_stream(server: Server, proxy: Proxy, far: AsyncClient, silence: AsyncSilence) -> None:
    await begun(server)
    stream = far.runs.stream("run", consumer="ui")
    assert [(await anext(stream)).sequence for _ in BEGUN] == [1, 2, 3]
    proxy.black_hole()
    reading = asyncio.ensure_future(anext(stream))
    await until(lambda: silence.is_awaited(HEARTBEATS))
    await append(server.stubs, [run_finished()], first=4)
    silence.fall(HEARTBEATS)
    assert (await reading).sequence == 4
    assert proxy.connections == 2


async def test_a_blocking_stream(server: Server, proxy: Proxy, blocking: Client, blocking_silence: Silence) -> None:
    await begun(server)
    stream = blocking.runs.stream("run", consumer="ui")
    assert [(await asyncio.to_thread(next, stream)).sequence for _ in BEGUN] == [1, 2, 3]
    proxy.black_hole()
    reading = asyncio.ensure_future(asyncio.to_thread(next, stream))
    await until(lambda: blocking_silence.is_awaited(HEARTBEATS))
    await append(server.stubs, [run_finished()], first=4)
    blocking_silence.fall(HEARTBEATS)
    assert (await reading).sequence == 4
    assert proxy.connections == 2
    await asyncio.to_thread(stream.close)


async def test_a_watch(server: Server, proxy: Proxy, far: AsyncClient, silence: AsyncSilence) -> None:
    await begun(server)
    watch = far.runs.watch()
    assert (await anext(watch)).run_id == "run"
    assert (await anext(watch)).type == "caught_up"
    proxy.black_hole()
    watching = asyncio.ensure_future(anext(watch))
    await until(lambda: silence.is_awaited(HEARTBEATS))
    await create(server.stubs, "other")
    silence.fall(HEARTBEATS)
    assert (await watching).run_id == "other"
    assert proxy.connections == 2


async def test_a_blocking_watch(server: Server, proxy: Proxy, blocking: Client, blocking_silence: Silence) -> None:
    await begun(server)
    watch = blocking.runs.watch()
    assert (await asyncio.to_thread(next, watch)).run_id == "run"
    assert (await asyncio.to_thread(next, watch)).type == "caught_up"
    proxy.black_hole()
    watching = asyncio.ensure_future(asyncio.to_thread(next, watch))
    await until(lambda: blocking_silence.is_awaited(HEARTBEATS))
    await create(server.stubs, "other")
    blocking_silence.fall(HEARTBEATS)
    assert (await watching).run_id == "other"
    assert proxy.connections == 2


async def test_a_producer(server: Server, proxy: Proxy, far: AsyncClient, silence: AsyncSilence) -> None:
    async with far.runs.start("agent", run_id="run", on_error="raise") as run:
        await run.flush()
        proxy.black_hole()
        for number in range(3):
            await run.custom("a.b", number)
        await until(lambda: silence.is_awaited(HEARTBEATS))
        silence.fall(HEARTBEATS)
        await run.flush()
    values = [event.custom.value_json for event in await recorded(server.stubs) if event.HasField("custom")]
    assert values == ["0", "1", "2"]
    assert proxy.connections == 2


async def test_a_blocking_producer(server: Server, proxy: Proxy, blocking: Client, blocking_silence: Silence) -> None:
    run = blocking.runs.start("agent", run_id="run", on_error="raise")
    await asyncio.to_thread(run.__enter__)
    await asyncio.to_thread(run.flush)
    proxy.black_hole()
    for number in range(3):
        await asyncio.to_thread(run.custom, "a.b", number)
    await until(lambda: blocking_silence.is_awaited(HEARTBEATS))
    blocking_silence.fall(HEARTBEATS)
    await asyncio.to_thread(run.flush)
    await asyncio.to_thread(run.__exit__, None, None, None)
    values = [event.custom.value_json for event in await recorded(server.stubs) if event.HasField("custom")]
    assert values == ["0", "1", "2"]
    assert proxy.connections == 2


async def test_a_silent_producer_hears_of_a_request_to_cancel(
    server: Server, client: AsyncClient, proxy: Proxy, far: AsyncClient, silence: AsyncSilence
) -> None:
    async with far.runs.start("agent", run_id="run", on_error="raise") as run:
        await run.flush()
        proxy.black_hole()
        await client.runs.cancel("run", "enough")
        await until(lambda: silence.is_awaited(HEARTBEATS))
        silence.fall(HEARTBEATS)
        await run.wait_cancelled()
        assert run.cancel_reason == "enough"


async def test_single_calls(server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_transport, "UNANSWERED", 0.1)
    await begun(server)
    async with AsyncClient(proxy.target, timeout=6) as client:
        await client.runs.get("run")
        proxy.black_hole()
        assert (await client.runs.get("run")).id == "run"
    assert proxy.connections == 2


async def test_single_blocking_calls(server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "UNANSWERED", 0.1)
    await begun(server)
    with Client(proxy.target, timeout=6) as client:
        await asyncio.to_thread(client.runs.get, "run")
        proxy.black_hole()
        assert (await asyncio.to_thread(client.runs.get, "run")).id == "run"
    assert proxy.connections == 2


async def test_waiting_for_a_runs_end(server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (async_transport, async_runs):
        monkeypatch.setattr(module, "UNANSWERED", 0.2)
    monkeypatch.setattr(async_runs, "LONGEST_WAIT", 0.1)
    await begun(server)
    async with AsyncClient(proxy.target) as client:
        await client.runs.get("run")
        proxy.black_hole()
        await append(server.stubs, [run_finished()], first=4)
        assert (await client.runs.wait("run")).state is RunState.SUCCEEDED
    assert proxy.connections == 2
