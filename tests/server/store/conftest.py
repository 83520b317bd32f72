"""Every test that asks for `engine` is run with each engine there is."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from lavant.server.store.jetstream import JetStreamEngine, Location
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine
from support.clock import ManualClock
from support.nats import NatsServer, emptied, fresh_location, nats_cluster, nats_server


@asynccontextmanager
async def _sqlite(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    folder: Path = request.getfixturevalue("tmp_path")
    engine = await SQLiteEngine.open(folder / "lavant.db", request.getfixturevalue("clock"))
    yield engine
    await engine.close()


@asynccontextmanager
async def _jetstream(request: pytest.FixtureRequest, store: str = "one_server") -> AsyncIterator[Engine]:
    location = request.getfixturevalue(store)
    async with emptied(location):
        engine = await JetStreamEngine.open(location, request.getfixturevalue("clock"))
        yield engine
        await engine.close()


@pytest.fixture(scope="session")
def one_server(nats: NatsServer) -> Location:
    """A store on one NATS server, for all tests in turn."""
    return fresh_location([nats])


@pytest.fixture(scope="session")
def three_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    """A store on a cluster, for all tests in turn: every message is kept by three servers."""
    with nats_cluster(tmp_path_factory.mktemp("three-nats")) as servers:
        yield fresh_location(servers)


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server that the test may kill."""
    with nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def replicas(location: Location, clock: ManualClock) -> AsyncIterator[Sequence[JetStreamEngine]]:
    """Two engines that share a store."""
    async with AsyncExitStack() as stack:
        engines = []
        for _ in range(2):
            engines.append(await JetStreamEngine.open(location, clock))
            stack.push_async_callback(engines[-1].close)
        yield engines


_Opening = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Engine]]
_ENGINES: dict[str, _Opening] = {
    "sqlite": _sqlite,
    "jetstream": _jetstream,
    "cluster": partial(_jetstream, store="three_servers"),
}


@pytest.fixture(params=_ENGINES)
async def engine(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Engine]:
    async with _ENGINES[request.param](request) as engine:
        yield engine
