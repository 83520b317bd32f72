"""Clients that tests can ask for."""

from collections.abc import AsyncIterator

import pytest

from lavant.client import AsyncClient
from support.server import Server, ServerProcess


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    """A client of a server in this process."""
    async with AsyncClient(server.target) as opened:
        yield opened


@pytest.fixture
async def process_client(server_process: ServerProcess) -> AsyncIterator[AsyncClient]:
    """A client of a server that can be killed."""
    async with AsyncClient(server_process.target) as opened:
        yield opened
