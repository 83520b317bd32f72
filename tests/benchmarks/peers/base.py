"""Base of the systems that benchmarks compare: a server in a process of its own, and a client's connection to it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Self

from benchmarks.kit.process import Process

Publish = Callable[[str], Awaitable[object]]


class UnavailableError(Exception):
    """System that cannot be run here; the text says what is missing."""


class Peer(ABC):
    """Log per run, as a client of the system uses it. An append is durable before it returns."""

    name: ClassVar[str]

    @classmethod
    def install(cls) -> None:
        """Install the server from a package registry; raise UnavailableError if that fails."""
        raise UnavailableError("it cannot be installed here")

    @classmethod
    def check(cls) -> None:
        """Raise UnavailableError unless the server is installed."""
        return

    @classmethod
    @abstractmethod
    def serve(cls, folder: Path) -> AbstractAsyncContextManager[Process]:
        """Run the server until the block's end, with its data in a folder."""

    @classmethod
    @abstractmethod
    def connect(cls, address: str, *, width: int = 1) -> AbstractAsyncContextManager[Self]:
        """Connect, for `width` calls at once."""

    @abstractmethod
    async def create(self, run: str) -> None:
        """Create a run."""

    @abstractmethod
    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """Return what `append` takes: events of these texts, the first being the run's `first`, counted from 1."""

    @abstractmethod
    async def append(self, encoded: Any) -> None:
        """Append events in one call, and finish the run if they were encoded with `end`."""

    @abstractmethod
    async def read(self, run: str) -> int:
        """Read a finished run, access each event's text, and return their total length."""

    def follow(self, run: str) -> AsyncIterator[str]:
        """Yield the texts of a run from its start, live."""
        raise NotImplementedError

    @asynccontextmanager
    async def producing(self, run: str) -> AsyncIterator[Publish]:
        """Create a run; yields what appends one text to it."""
        await self.create(run)
        numbers = count(1)
        yield lambda text: self.append(self.encode(run, next(numbers), [text]))

    async def small_run(self, run: str, texts: Sequence[str]) -> None:
        """Create a run, append all texts at once, finish and read it."""
        await self.create(run)
        await self.append(self.encode(run, 1, texts, end=True))
        assert await self.read(run) >= sum(map(len, texts))


async def at_once(width: int, calls: int, call: Callable[[int], Awaitable[object]]) -> None:
    """Make so many calls, `width` at a time, numbered from 0."""
    numbers = iter(range(calls))

    async def work() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(work() for _ in range(width)))
