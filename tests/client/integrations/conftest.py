"""Fixtures of all integrations."""

from collections.abc import Iterator

import pytest

from lavant.client import Client
from support.server import ServerProcess


@pytest.fixture
def blocking(server_process: ServerProcess) -> Iterator[Client]:
    """A blocking client of a server in a process of its own."""
    with Client(server_process.target) as client:
        yield client
