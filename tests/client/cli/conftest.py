"""The command `lavant`, as a process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from support.server import Server

LIMIT = 30.0
COMMAND = (sys.executable, "-c", "from lavant.client.cli import main; main()")

Lavant = Callable[..., Awaitable["Ended"]]
Start = Callable[..., Awaitable["Process"]]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


class Process:
    """A command at work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Return its next line of output."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT):
            return (await self._process.stdout.readline()).decode().rstrip("\n")

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    async def ended(self) -> Ended:
        """Wait for its end."""
        async with asyncio.timeout(LIMIT):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return Ended(self._process.returncode, (out or b"").decode(), (err or b"").decode())

    def end(self) -> None:
        """Kill it if it is still there."""
        if self._process.returncode is None:
            self._process.kill()


def environment(target: str) -> dict[str, str]:
    """The variables that a command is given."""
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    return {**kept, "LAVANT_TARGET": target, "COLUMNS": "80", "TERM": "xterm-256color"}


@pytest.fixture
async def start(server: Server) -> AsyncIterator[Start]:
    """Starts a command whose server is the `server` fixture."""
    started: list[Process] = []

    async def begin(*arguments: str, stdout: int = asyncio.subprocess.PIPE, **variables: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            env={**environment(server.target), **variables},
        )
        started.append(Process(process))
        return started[-1]

    yield begin
    for process in started:
        process.end()


@pytest.fixture
def lavant(server: Server) -> Lavant:
    """Runs a command to its end; its server is the `server` fixture, unless it names another."""

    async def run(*arguments: str, input: bytes = b"", **variables: str) -> Ended:  # noqa: A002
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment(server.target), **variables},
        )
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate(input)
        assert process.returncode is not None
        return Ended(process.returncode, (out or b"").decode(), (err or b"").decode())

    return run
