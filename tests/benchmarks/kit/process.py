"""Processes that are measured: started here, ended by their ids, with the CPU time and memory of their trees."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

_START_LIMIT = 30.0
_STOP_LIMIT = 10.0


class Process:
    """Running process; `address` is where it serves, `line` what it printed when it was ready."""

    def __init__(self, running: "subprocess.Popen[bytes]", address: str, line: str) -> None:
        self._running = running
        self.address = address
        self.line = line

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running.pid

    async def next_line(self) -> str:
        """Return the next line that it prints; empty once it has ended."""
        return await _next_line(self._running)

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._running.stdin is not None
        self._running.stdin.write(f"{line}\n".encode())
        self._running.stdin.flush()

    def cpu(self) -> float:
        """Return the CPU seconds of the process and of all its children, ended ones included."""
        root = psutil.Process(self.pid)
        ended = root.cpu_times()
        return ended.children_user + ended.children_system + sum(map(_cpu_clock, self._pids()))

    def memory(self) -> int:
        """Return the resident bytes of the process and its children."""
        total = 0
        for pid in self._pids():
            with suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_info().rss
        return total

    def _pids(self) -> list[int]:
        return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]


def _cpu_clock(pid: int) -> float:
    """Read a process's CPU clock: nanoseconds, where /proc/PID/stat counts in ticks of 10 ms."""
    with suppress(OSError):  # it has ended
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), as Linux numbers these clocks
    return 0.0


@asynccontextmanager
async def process(
    *command: object, folder: Path, address: str = "", environment: Mapping[str, str] = {}
) -> AsyncIterator[Process]:
    """Run a command until the block's end.

    It is ready when it accepts connections at `address`; without one, when it has printed a line, which ends with
    its address. Its log is `log` in the folder.
    """
    running = _started([*map(str, command)], folder / "log", environment, piped=not address)
    try:
        line = ""
        async with asyncio.timeout(_START_LIMIT):
            if address:
                await _accepting(address)
            else:
                line = await _next_line(running)
                assert line, (folder / "log").read_text()
        yield Process(running, address or line.split()[-1], line)
    finally:
        running.terminate()
        try:
            await asyncio.to_thread(running.wait, _STOP_LIMIT)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _started(
    command: Sequence[str], log_file: Path, environment: Mapping[str, str], *, piped: bool
) -> "subprocess.Popen[bytes]":
    # Popen starts by vfork: the handlers that gRPC has for fork do not run, which uvloop's subprocesses call.
    with log_file.open("ab") as log:
        output = subprocess.PIPE if piped else log
        variables = {**os.environ, **environment}
        return subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=output, stderr=log)


async def _next_line(running: "subprocess.Popen[bytes]") -> str:
    assert running.stdout is not None
    return (await asyncio.to_thread(running.stdout.readline)).decode().strip()


async def _accepting(address: str) -> None:
    host, port = address.split(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


def free_address() -> str:
    """Return a loopback address that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
