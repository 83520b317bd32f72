"""A server that is out of reach costs an application neither time nor runs, as long as these fit into memory."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from random import Random

import pytest

from lavant.client import AsyncClient, Client, ProducerOptions, ProducerOverloaded, RunState, Unavailable
from lavant.client._async import backlog
from support.calls import until
from support.proxy import Proxy
from support.server import Server, ServerProcess

SOON = 1.5  # seconds that a loaded machine may take for what waits for nothing
RUNS = 20


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A way to a server, which a test may close."""
    async with Proxy(server.target, Random(1)) as opened:
        yield opened


async def said(client: AsyncClient, run_id: str) -> str:
    """Return a run's text, which is whole and well ended."""
    assert (await client.runs.wait(run_id, timeout=20)).state is RunState.SUCCEEDED
    return await client.runs.stream(run_id).text()


async def test_runs_during_an_outage_wait_for_nothing_and_arrive_when_it_is_over(
    server_process: ServerProcess, process_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lavant.client")
    await server_process.kill()
    began = time.monotonic()
    runs = []
    for number in range(RUNS):
        async with process_client.runs.start("agent") as run, run.step("plan"):
            await run.text(f"run {number}")
        runs.append(run.id)
    assert time.monotonic() - began < SOON
    await server_process.start()
    assert await process_client.flush(20)
    assert [await said(process_client, run_id) for run_id in runs] == [f"run {number}" for number in range(RUNS)]
    begun, over = [record.getMessage() for record in caplog.records]
    assert "the server is out of reach" in begun
    assert "the server is back" in over
    assert "nothing was lost" in over


async def test_a_run_whose_server_goes_away_is_left_at_once_and_arrives_whole(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    async with process_client.runs.start("agent") as run:
        await run.text("before, ")
        await run.flush()
        await server_process.kill()
        began = time.monotonic()
        await run.text("during, ")
    assert time.monotonic() - began < SOON
    async with process_client.runs.start("agent") as other:
        await other.text("during, ")
        await server_process.start()
        assert await other.flush(20)
        await other.text("after")
    assert await said(process_client, run.id) == "before, during, "
    assert await said(process_client, other.id) == "during, after"


async def test_a_silent_server_holds_up_one_run_for_two_seconds_and_no_other(proxy: Proxy, client: AsyncClient) -> None:
    proxy.stall()
    async with AsyncClient(proxy.target) as far:
        began = time.monotonic()
        async with far.runs.start("agent") as first:
            await first.text("first")
        assert 1.5 < time.monotonic() - began < 2 + SOON
        began = time.monotonic()
        for _ in range(RUNS):
            async with far.runs.start("agent") as last:
                await last.text("last")
        assert time.monotonic() - began < SOON
        proxy.release()
        assert await far.flush(20)
    assert [await said(client, run.id) for run in (first, last)] == ["first", "last"]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_what_does_not_fit_into_memory_is_dropped_and_counted(
    server_process: ServerProcess, process_client: AsyncClient, caplog: pytest.LogCaptureFixture, goes_on: bool
) -> None:
    options = ProducerOptions(queue_bytes=3_000, block_timeout=60)
    async with process_client.runs.start("agent", options=options) as run:
        await run.text("begun")
        await run.flush()
        await server_process.kill()
        await run.flush()
        began = time.monotonic()
        for _ in range(100):
            async with run.step("plan"):
                await run.custom("a.b", "x" * 100)
        assert time.monotonic() - began < SOON
        if goes_on:
            await server_process.start()
            assert await run.flush(20)
            await run.custom("a.b", "after")
        run.output = 1
    if not goes_on:
        await server_process.start()
        assert await process_client.flush(20)
    ended = await process_client.runs.get(run.id)
    assert (ended.state, ended.result and ended.result.output) == (RunState.SUCCEEDED, 1)
    events = [event async for event in process_client.runs.events(run.id, page_size=1_000)]
    (marker,) = [event.proto.error_reported.error.message for event in events if event.type == "error_reported"]
    dropped = int(marker.split()[0])
    assert "events were dropped here" in marker
    assert 200 < dropped < 300
    assert events[-2].type == ("custom" if goes_on else "error_reported")
    _, over = [record.getMessage() for record in caplog.records]
    assert f"{dropped} events of 1 runs were dropped" in over


@pytest.mark.parametrize(("bound", "most"), [("MAX_BACKLOG_BYTES", 30_000), ("MAX_BACKLOG_RUNS", 3)])
async def test_the_backlog_is_bounded(
    server_process: ServerProcess,
    process_client: AsyncClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    most: int,
) -> None:
    monkeypatch.setattr(backlog, bound, most)
    await server_process.kill()
    runs = []
    for _ in range(RUNS):
        async with process_client.runs.start("agent") as run:
            for _ in range(40):
                await run.custom("a.b", "x" * 100)
        runs.append(run.id)
    assert not await process_client.flush(0)
    await server_process.start()
    await process_client.flush(20)
    stored = [run async for run in process_client.runs.list()]
    assert {run.state for run in stored} == {RunState.SUCCEEDED}
    assert len(stored) == (RUNS if bound == "MAX_BACKLOG_BYTES" else most)
    lengths = {run.last_sequence for run in stored}
    assert 42 in lengths
    assert lengths == ({42, 3} if bound == "MAX_BACKLOG_BYTES" else {42})
    assert "were dropped" in caplog.records[-1].getMessage()


async def test_a_strict_run_raises_what_is_not_durable_and_sends_it_nevertheless(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    run = process_client.runs.start("agent", on_error="raise", options=ProducerOptions(close_timeout=0.2))

    async def work() -> None:
        async with run:
            await run.text("before, ")
            await run.flush()
            await server_process.kill()
            await run.text("during")

    with pytest.raises(ProducerOverloaded, match="What is left is still sent"):
        await work()
    await server_process.start()
    assert await process_client.flush(20)
    assert await said(process_client, run.id) == "before, during"


async def test_a_strict_run_that_cannot_be_created_raises_and_is_not_left_open(
    proxy: Proxy, client: AsyncClient
) -> None:
    proxy.stall()
    async with AsyncClient(proxy.target, timeout=0.3) as far:
        with pytest.raises(Unavailable):
            async with far.runs.start("agent", run_id="run", on_error="raise"):
                pytest.fail("it was entered")
        proxy.release()
        assert await far.flush(20)
    assert (await client.runs.get("run")).state is RunState.FAILED


async def test_a_run_that_exists_with_other_settings_is_logged_once(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.runs.create("other", run_id="run")
    async with client.runs.start("agent", run_id="run") as run:
        for _ in range(3):
            await run.text("not recorded")
            assert not await run.flush()
    (refused,) = [record.getMessage() for record in caplog.records]
    assert refused.startswith("run run is recorded in part: run run exists with other settings")


async def test_a_client_finds_the_runs_that_it_has_begun(client: AsyncClient) -> None:
    for _ in range(10):
        run = client.runs.start("agent").begin()
        assert (await client.runs.get(run.id)).id == run.id
        run = client.runs.start("agent").begin()
        assert (await anext(client.runs.stream(run.id))).type == "run_started"
        run = client.runs.start("agent").begin()
        assert run.id in [found.id async for found in client.runs.list()]


async def test_threads_wait_for_nothing_and_are_few_during_an_outage(server_process: ServerProcess) -> None:
    def work() -> tuple[float, list[str]]:
        began = time.monotonic()
        runs = []
        for number in range(RUNS):
            with client.runs.start("agent") as run:
                run.text(f"run {number}")
            runs.append(run.id)
        return time.monotonic() - began, runs

    def threads() -> int:
        return sum(thread.name == "lavant" for thread in threading.enumerate())

    await server_process.kill()
    with Client(server_process.target) as client:
        seconds, runs = await asyncio.to_thread(work)
        assert seconds < SOON
        await until(lambda: threads() < 5)  # those of the last runs learn of the outage a moment later
        await server_process.start()
        assert await asyncio.to_thread(client.flush, 20)
        assert [client.runs.stream(run_id).text() for run_id in runs] == [f"run {number}" for number in range(RUNS)]


async def test_closing_the_client_when_the_server_is_just_back_loses_nothing(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    async with AsyncClient(server_process.target) as client:
        async with client.runs.start("agent") as run:
            await run.flush()
            await server_process.kill()
            await run.text("said")
        await server_process.start()
    assert await said(process_client, run.id) == "said"
