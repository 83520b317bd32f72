"""Servers of many tenants, with each engine there is."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.clock import ManualClock
from support.hook import Hook
from support.server import Server, serving
from support.tenants import named_tenants


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Where alerts are posted to."""
    opened = Hook()
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "jetstream"])
def overrides(request: pytest.FixtureRequest, hook: Hook) -> dict[str, Any]:
    """The settings of an engine."""
    engine = {} if request.param == "sqlite" else {"store": str(request.getfixturevalue("location"))}
    return {"webhooks": [hook.prefix], "http": "127.0.0.1:0", **engine}


@pytest.fixture
async def server(tmp_path: Path, overrides: dict[str, Any], clock: ManualClock) -> AsyncIterator[Server]:
    """A server of many tenants that lives by the `clock` fixture."""
    with named_tenants():
        async with serving(tmp_path, clock=clock, **overrides) as running_server:
            yield running_server
