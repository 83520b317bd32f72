"""A client for the tests of the pages."""

from collections.abc import AsyncIterator

import pytest

from lavant.client import AsyncClient
from support.server import Server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    """A client of a server in this process."""
    async with AsyncClient(server.target) as opened:
        yield opened
