"""Several processes on one port, as the systemd unit starts them."""

import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lavant.client import AsyncClient
from support.nats import NatsServer, fresh_location, without_streams
from support.server import ServerProcess, free_address

UNIT = Path(__file__).parents[3] / "server" / "deploy" / "systemd" / "lavant@.service"


def environment(instance: int, **changes: str) -> dict[str, str]:
    """Read the environment of an instance from the unit, without credentials for NATS: that of the test has none."""
    found = dict(re.findall(r"^Environment=(?!LAVANT_NATS_|.*%d)(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    return {name: value.replace("%i", str(instance)) for name, value in {**found, **changes}.items()}


@pytest.fixture
async def processes(tmp_path: Path, nats: NatsServer) -> AsyncIterator[list[ServerProcess]]:
    """Two processes that share a port."""
    location, target = fresh_location([nats]), free_address()
    store = f"{','.join(location.servers)}/{location.name}"
    found = [ServerProcess(tmp_path, environment(number), store=store) for number in range(2)]
    async with without_streams(location):
        for process in found:
            process.target = target
            await process.start()
        yield found
        for process in found:
            await process.kill()


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
async def test_streams_resume_on_the_process_that_is_left(
    processes: list[ServerProcess], ended_by: signal.Signals
) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(processes[0].target)) for _ in range(6)]
        async with clients[0].runs.start("agent", on_error="raise") as run:
            await run.text("before ")
            await run.flush()
            streams = [client.runs.stream(run.id) for client in clients]
            for stream in streams:
                await anext(stream)
            for number, process in enumerate(processes):
                await (process.kill() if ended_by == signal.SIGKILL else process.terminate())
                await run.text(f"{number} ")
                await run.flush()
                await process.start()
            await run.text("after")
        assert [await stream.text() for stream in streams] == ["before 0 1 after"] * 6


async def test_a_port_is_not_shared_unless_asked(tmp_path: Path) -> None:
    first, second = ServerProcess(tmp_path / "a"), ServerProcess(tmp_path / "b")
    try:
        await first.start()
        second.target = first.target
        with pytest.raises(AssertionError, match="the server said ''"):
            await second.start()
    finally:
        await first.kill()
        await second.kill()
