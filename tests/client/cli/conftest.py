"""The command `lavant`, with the server of the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from support.command import Ended, Process, run_command, start_command
from support.server import Server

Lavant = Callable[..., Awaitable[Ended]]
Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(server: Server) -> AsyncIterator[Start]:
    """Starts a command whose server is the `server` fixture."""
    started: list[Process] = []

    async def begin(*arguments: str, stdout: int = asyncio.subprocess.PIPE, **variables: str) -> Process:
        started.append(await start_command(*arguments, target=server.target, stdout=stdout, variables=variables))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@pytest.fixture
def lavant(server: Server) -> Lavant:
    """Runs a command to its end; its server is the `server` fixture, unless it names another."""

    async def run(*arguments: str, input: bytes = b"", **variables: str) -> Ended:  # noqa: A002
        return await run_command(*arguments, target=server.target, stdin=input, variables=variables)

    return run
