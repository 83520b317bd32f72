"""A producer delays its agent for no longer than its options allow, whatever happens to the server."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest

from lavant.client import AsyncClient, Client, ProducerOptions, ProducerOverloaded, RunState
from lavant.client.options import OnError
from support.proxy import Proxy
from support.server import Server, ServerProcess

BLOCK, CLOSE = 0.4, 0.6
LATE = 1.5  # seconds that a loaded machine, and the end of the call, may take; the defaults take thirty and more
OPTIONS = ProducerOptions(queue_bytes=2_000, block_timeout=BLOCK, close_timeout=CLOSE)
CHUNK = "x" * 500
gone = pytest.mark.parametrize("gone", [Proxy.vanish, Proxy.stall, Proxy.black_hole])
MODES: list[OnError] = ["log", "raise"]


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A way to a server, which a test may close."""
    async with Proxy(server.target, Random(1)) as opened:
        yield opened


@gone
@pytest.mark.parametrize("on_error", MODES)
async def test_an_agent(proxy: Proxy, gone: Callable[[Proxy], None], on_error: OnError) -> None:
    async def work(client: AsyncClient) -> None:
        async with client.runs.start("agent", on_error=on_error, options=OPTIONS) as run:
            await run.flush()
            gone(proxy)
            for _ in range(20):
                async with run.step("plan"), run.tool("search"):
                    await run.text(CHUNK)

    async with AsyncClient(proxy.target) as client:
        began = time.monotonic()
        if on_error == "raise":
            with pytest.raises(ProducerOverloaded, match=r"the queue is full.*block_timeout"):
                await work(client)
            most = 6 * BLOCK + CLOSE  # what is open is closed: a text, a tool, a step, the run
        else:
            await work(client)
            most = BLOCK + CLOSE
        assert time.monotonic() - began < most + LATE


@gone
async def test_a_thread(proxy: Proxy, gone: Callable[[Proxy], None]) -> None:
    def begin(client: Client) -> float:
        with client.runs.start("agent", options=OPTIONS) as run:
            run.flush()
            loop.call_soon_threadsafe(gone, proxy)
            began = time.monotonic()
            for _ in range(20):
                with run.step("plan"), run.tool("search"):
                    run.text(CHUNK)
        return time.monotonic() - began

    loop = asyncio.get_running_loop()
    with Client(proxy.target) as client:
        assert await asyncio.to_thread(begin, client) < BLOCK + CLOSE + LATE


async def test_a_task_that_is_cancelled_while_it_waits_for_room(proxy: Proxy) -> None:
    full = asyncio.Event()

    async def work(client: AsyncClient) -> None:
        options = ProducerOptions(queue_bytes=2_000, block_timeout=30, close_timeout=CLOSE)
        async with client.runs.start("agent", on_error="raise", options=options) as run:
            await run.flush()
            proxy.stall()
            for _ in range(4):
                await run.custom("a.b", CHUNK)
            full.set()
            await run.custom("a.b", CHUNK)

    async with AsyncClient(proxy.target) as client:
        working = asyncio.ensure_future(work(client))
        await full.wait()
        await asyncio.sleep(0)
        working.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert time.monotonic() - began < CLOSE + LATE


async def test_the_beginning(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    proxy.stall()
    async with AsyncClient(proxy.target) as client:
        began = time.monotonic()
        async with client.runs.start("agent", options=OPTIONS) as run:
            await run.text("nobody hears this")
        assert time.monotonic() - began < BLOCK + LATE
    # One line when the outage is known, one for what is lost when the client is closed.
    begun, lost = [record for record in caplog.records if record.name == "lavant.client"]
    assert "out of reach" in begun.getMessage()
    assert re.search(r"\d events of \d runs are lost", lost.getMessage())


@pytest.mark.parametrize("drains", [True, False])
async def test_a_silent_producer_is_reached_after_a_restart(
    server_process: ServerProcess, process_client: AsyncClient, drains: bool
) -> None:
    async with process_client.runs.start("agent", run_id="r", on_error="raise") as run:
        await run.flush()
        await (server_process.terminate() if drains else server_process.kill())
        await server_process.start()
        await process_client.runs.cancel("r", "enough")
        await run.wait_cancelled()
    assert (await process_client.runs.get("r")).state is RunState.SUCCEEDED


async def test_waiting_for_a_cancelled_sender_raises_the_reason(client: AsyncClient) -> None:
    before = asyncio.all_tasks()
    async with client.runs.start("agent", options=OPTIONS) as run:
        senders = asyncio.all_tasks() - before
        await run.flush()
        for task in senders:
            task.cancel()
        await run.text("lost")
        await run.flush()
