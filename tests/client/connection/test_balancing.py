"""Several addresses: calls go to all that are well, and those that were cut go to another."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from lavant.client import AsyncClient, Client
from lavant.client._async import transport as async_transport
from support.proxy import Proxy
from support.server import Server, serving

LIMIT = 20.0


@pytest.fixture
async def ways(server: Server) -> AsyncIterator[tuple[Proxy, Proxy]]:
    """Two addresses of one server, as if of two replicas that share a store."""
    async with Proxy(server.target, Random(1)) as one, Proxy(server.target, Random(2)) as other:
        yield one, other


async def test_calls_go_to_all(ways: tuple[Proxy, Proxy]) -> None:
    async with AsyncClient([way.target for way in ways]) as client:
        async with client.runs.start("agent") as run:
            await run.flush()
            streams = [client.runs.stream(run.id) for _ in range(4)]
            for stream in streams:
                assert (await anext(stream)).type == "run_started"
            for way in ways:
                way.cut()
            await run.text("after")
        assert [await stream.text() for stream in streams] == ["after"] * 4
    assert all(way.connections >= 2 for way in ways)


async def test_who_was_cut_goes_to_the_other(ways: tuple[Proxy, Proxy]) -> None:
    async with AsyncClient([way.target for way in ways]) as client:
        async with client.runs.start("agent", on_error="raise") as run:
            await run.flush()
            streams = [client.runs.stream(run.id) for _ in range(4)]
            for stream in streams:
                await anext(stream)
            ways[0].vanish()
            for number in range(20):
                await run.text(f"{number}")
                assert (await client.runs.get(run.id)).id == run.id
            await run.flush()
        for stream in streams:
            assert await stream.text() == "".join(map(str, range(20)))


async def test_a_server_that_hangs_is_passed_over(ways: tuple[Proxy, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_transport, "UNANSWERED", 0.1)
    async with AsyncClient([way.target for way in ways], timeout=6) as client:
        run = await client.runs.create("agent")
        async with asyncio.timeout(LIMIT):
            while not all(way.connections for way in ways):
                await client.runs.get(run.id)
        ways[0].stall()
        for _ in range(4):
            assert (await client.runs.get(run.id)).id == run.id
        ways[0].release()


async def test_a_server_that_drains_gets_no_calls(server: Server, tmp_path: Path) -> None:
    """The one that drains has another store: whatever it is asked for, it would answer NOT_FOUND."""
    other = tmp_path / "other"
    other.mkdir()
    async with serving(other) as draining:
        await draining.app._health.enter_graceful_shutdown()
        with Client([draining.target, server.target]) as client:
            run = await asyncio.to_thread(client.runs.create, "agent")
            for _ in range(10):
                assert (await asyncio.to_thread(client.runs.get, run.id)).id == run.id
