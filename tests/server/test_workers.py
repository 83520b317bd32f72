"""Several processes on one port."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psutil
import pytest

from lavant.client import AsyncClient
from support.calls import until
from support.nats import NatsServer, fresh_location, without_streams
from support.server import ServerProcess


@pytest.fixture
async def supervisor(tmp_path: Path, nats: NatsServer) -> AsyncIterator[ServerProcess]:
    """A server with two workers."""
    location = fresh_location([nats])
    async with without_streams(location):
        process = ServerProcess(tmp_path, store=f"{','.join(location.servers)}/{location.name}")
        await process.start("--workers", "2")
        yield process
        await process.kill()


def workers(supervisor: ServerProcess) -> set[psutil.Process]:
    """Those at work."""
    return {one for one in psutil.Process(supervisor.pid).children() if is_at_work(one)}


def is_at_work(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


async def test_a_worker_that_dies_is_replaced(supervisor: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(supervisor.target)) for _ in range(6)]
        async with clients[0].runs.start("agent", on_error="raise") as run:
            await run.text("before ")
            await run.flush()
            streams = [client.runs.stream(run.id) for client in clients]
            for stream in streams:
                await anext(stream)
            for worker in workers(supervisor):
                worker.kill()
                await until(lambda gone=worker: len(workers(supervisor) - {gone}) == 2)  # type: ignore[misc]
            await run.text("after")
        assert [await stream.text() for stream in streams] == ["before after"] * 6


async def test_all_drain_together(supervisor: ServerProcess) -> None:
    found = workers(supervisor)
    assert await supervisor.terminate() == 0
    assert not any(map(is_at_work, found))


async def test_none_outlives_its_supervisor(supervisor: ServerProcess) -> None:
    found = workers(supervisor)
    await supervisor.kill()
    await until(lambda: not any(map(is_at_work, found)))
