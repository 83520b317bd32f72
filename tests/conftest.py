"""Servers that tests can ask for."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lavant.server.store.jetstream import Location
from support.clock import ManualClock
from support.nats import NatsServer, fresh_location, nats_server, without_streams
from support.server import Server, ServerProcess, serving

# A shell has its background jobs ignore SIGINT, and what they start would too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server in this process, with the machine's clock."""
    async with serving(tmp_path) as running_server:
        yield running_server


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until it is moved."""
    return ManualClock()


@pytest.fixture
async def timed_server(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Server]:
    """A server in this process that lives by the `clock` fixture."""
    async with serving(tmp_path, clock=clock) as running_server:
        yield running_server


@pytest.fixture
async def server_process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server in a process of its own, started."""
    process = ServerProcess(tmp_path)
    await process.start()
    yield process
    await process.kill()


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server for all tests."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def location(nats: NatsServer) -> AsyncIterator[Location]:
    """A store of its own on NATS."""
    location = fresh_location([nats])
    async with without_streams(location):
        yield location
