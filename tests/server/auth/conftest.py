"""A server with principals, on each engine."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lavant.server.app import access
from lavant.server.auth.principal import ALL_SCOPES, Principal
from support.clock import ManualClock
from support.principals import a_principal, calling_as, knowing
from support.server import Server, Stubs, serving

As = Callable[[str], Awaitable[Stubs]]


@pytest.fixture(params=["sqlite", "jetstream"])
def overrides(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of an engine."""
    return {} if request.param == "sqlite" else {"store": str(request.getfixturevalue("location"))}


@pytest.fixture
def principals() -> list[Principal]:
    """Alice, with two credentials, and Bob; Carol may take over."""
    return [*map(a_principal, ("alice", "alice-2", "bob")), a_principal("carol", ALL_SCOPES)]


@pytest.fixture
async def principals_server(
    tmp_path: Path,
    overrides: dict[str, Any],
    principals: list[Principal],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Server]:
    """A server that knows them; it lives by the `clock` fixture."""
    monkeypatch.setattr(access, "open_to_all", knowing(*principals))
    async with serving(tmp_path, clock=clock, http="127.0.0.1:0", **overrides) as server:
        yield server


@pytest.fixture
async def as_(principals_server: Server) -> AsyncIterator[As]:
    """Connections that call as one of them."""
    async with AsyncExitStack() as stack:

        async def connect(name: str) -> Stubs:
            return await stack.enter_async_context(calling_as(principals_server.target, name))

        yield connect
