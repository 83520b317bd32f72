"""The command `lavant`, as a process: forked where that makes no difference."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from support import leaks
from support.forks import Fork, can_fork

LIMIT = 30.0
COMMAND = (sys.executable, "-c", "from lavant.client.cli import main; main()")
NOWHERE = "127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


class Process:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process | Fork) -> None:
        self._process = process

    async def line(self) -> str:
        """Return its next line of output."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT):
            return (await self._process.stdout.readline()).decode().rstrip("\n")

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    async def ended(self, stdin: bytes | None = None) -> Ended:
        """Wait for its end."""
        async with asyncio.timeout(LIMIT):
            out, err = await self._process.communicate(stdin)
        assert self._process.returncode is not None
        said, complaint = (out or b"").decode(), (err or b"").decode()
        return Ended(self._process.returncode, leaks.printed(said), leaks.written(complaint))

    def kill(self) -> None:
        """Kill it if it still runs."""
        if self._process.returncode is None:
            self._process.kill()


async def start_command(
    *arguments: str,
    target: str = NOWHERE,
    program: tuple[str, ...] = COMMAND,
    stdout: int = asyncio.subprocess.PIPE,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Process:
    """Start the command in a terminal of 80 columns, with these environment variables."""
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    environment = {**kept, "LAVANT_TARGET": target, "COLUMNS": "80", "TERM": "xterm-256color", **variables}
    pipe = asyncio.subprocess.PIPE
    if program is COMMAND and can_fork(environment):
        return Process(
            await Fork.started("lavant.client.cli:main", arguments, environment, stdin=True, stdout=stdout, stderr=pipe)
        )
    return Process(
        await asyncio.create_subprocess_exec(
            *program, *arguments, stdin=pipe, stdout=stdout, stderr=pipe, env=environment
        )
    )


async def run_command(
    *arguments: str,
    target: str = NOWHERE,
    program: tuple[str, ...] = COMMAND,
    stdin: bytes = b"",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Ended:
    """Run the command to its end."""
    process = await start_command(*arguments, target=target, program=program, variables=variables)
    return await process.ended(stdin)


def without(module: str) -> tuple[str, ...]:
    """The command where a module is not installed."""
    return (
        sys.executable,
        "-c",
        f"import sys; sys.modules[{module!r}] = None; from lavant.client.cli import main; main()",
    )
