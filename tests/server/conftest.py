"""Fixtures of the tests of the server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.nats import fresh_location, without_streams


@pytest.fixture(params=["sqlite", pytest.param("jetstream", marks=pytest.mark.nats)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """Settings of a store."""
    if request.param == "sqlite":
        yield {}
        return
    location = fresh_location([request.getfixturevalue("nats")])
    async with without_streams(location):
        yield {"store": str(location)}
