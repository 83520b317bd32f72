"""Every test that asks for `server` is run with each engine there is."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lavant.server.store.jetstream import Location
from support.clock import ManualClock
from support.server import Server, Stubs, serving


@pytest.fixture(params=["sqlite", "jetstream"])
def overrides(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of an engine."""
    return {} if request.param == "sqlite" else {"store": str(request.getfixturevalue("location"))}


@pytest.fixture
async def server(tmp_path: Path, overrides: dict[str, str], clock: ManualClock) -> AsyncIterator[Server]:
    """A server that lives by the `clock` fixture."""
    async with serving(tmp_path, clock=clock, **overrides) as running_server:
        yield running_server


@pytest.fixture
def stubs(server: Server) -> Stubs:
    """A connection to it."""
    return server.stubs


@pytest.fixture
async def replicas(location: Location, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Sequence[Stubs]]:
    """Connections to two servers that share a store and a clock."""
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(serving(tmp_path, store=str(location), clock=clock)) for _ in range(2)
        ]
        yield [one.stubs for one in servers]
