"""Processes of Python programs, forked from one that has imported lavant: its import takes most of a second of CPU."""

import asyncio
import atexit
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Self

_CONTEXT = multiprocessing.get_context("forkserver")
# All that starts no thread and reads no variable. None of tests/, which the fork server does not find.
_PRELOADED = [
    "lavant.server.__main__",  # first: like the commands, it sets what gRPC may log, which is read on import
    "lavant.client._async.client",
    "lavant.client._sync.client",
    "lavant.client.cli.alerts",
    "lavant.client.cli.app",
    "lavant.client.cli.evaluate",
    "lavant.client.cli.evaluations",
    "lavant.client.cli.export",
    "lavant.client.cli.import_",
    "lavant.client.cli.keys",
    "lavant.client.cli.rules",
    "lavant.client.cli.runs",
    "lavant.client.cli.scores",
    "lavant.client.cli.session",
    "lavant.client.cli.tail.command",
    "lavant.client.cli.tokens",
    "lavant.server.commands.stores",
    "lavant.server.store.jetstream",
]
_CONTEXT.set_forkserver_preload(_PRELOADED)
# Variables that are read when Python starts, or lavant is imported: a fork would come too late for them.
_READ_AT_START = ("PYTHON", "GRPC_", "LC_", "LANG", "LAVANT_FAILPOINT")


def can_fork(environment: Mapping[str, str]) -> bool:
    """Return whether a process with such an environment may be forked."""
    differing = {name for name, value in environment.items() if os.environ.get(name) != value}
    return not any(name.startswith(_READ_AT_START) for name in differing | (os.environ.keys() - environment.keys()))


class Fork:
    """A process that runs `module:function`, with what tests use of the interface of `asyncio.subprocess.Process`."""

    def __init__(self, process: BaseProcess, stdin: int | None) -> None:
        assert process.pid is not None
        self.pid: int = process.pid
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._process = process
        self._stdin = stdin

    @classmethod
    async def started(
        cls,
        program: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: bool = False,
        stdout: int = asyncio.subprocess.PIPE,
        stderr: int | None = None,
    ) -> Self:
        """Start a process; `stdout` and `stderr` are descriptors or PIPE, None: those of this process."""
        own, theirs = [], []
        for given, inherited in ((stdout, 1), (stderr, 2)):
            if given == asyncio.subprocess.PIPE:
                reading, writing = os.pipe()
                own.append(reading)
            else:
                writing = os.dup(inherited if given is None else given)
                own.append(-1)
            theirs.append(Connection(writing, readable=False))
        feeding: int | None = None
        if stdin:
            taking, feeding = os.pipe()
        else:
            taking = os.open(os.devnull, os.O_RDONLY)
        ends = [Connection(taking, writable=False), *theirs]
        process = _CONTEXT.Process(target=_run, args=(program, list(arguments), dict(environment), ends))
        process.start()
        for end in ends:
            end.close()
        fork = cls(process, feeding)
        fork.stdout, fork.stderr = [None if end < 0 else await _reader(end) for end in own]
        return fork

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    async def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        sentinel = os.dup(self._process.sentinel)  # two may wait
        loop.add_reader(sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(sentinel)
            os.close(sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    async def communicate(self, data: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Send what it reads, and return what it prints until its end."""
        feeding = asyncio.create_task(asyncio.to_thread(self._feed, data or b""))
        out, err = await asyncio.gather(*(_all(stream) for stream in (self.stdout, self.stderr)))
        await feeding
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def _feed(self, data: bytes) -> None:
        if self._stdin is None:
            return
        stdin, self._stdin = self._stdin, None
        try:
            with open(stdin, "wb") as file:  # noqa: PTH123  # a descriptor
                file.write(data)
        except BrokenPipeError:
            pass


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    file = open(descriptor, "rb", buffering=0)  # noqa: SIM115, ASYNC230  # a descriptor, closed by the transport
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


async def _all(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()


def _run(program: str, arguments: list[str], environment: dict[str, str], ends: list[Connection]) -> None:
    """Become the program."""
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115  # descriptors
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    module, _, function = program.partition(":")
    assert _PRELOADED[0] in sys.modules, "the fork server has imported nothing: it passes over what it does not find"
    sys.argv = [module, *arguments]
    try:
        sys.exit(getattr(import_module(module), function)())
    finally:  # as Python does at the end of a program, and multiprocessing does not
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
