"""A bare grpc.aio server with a list in memory, as a limit; and the same with commits to SQLite."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from grpc import aio

from benchmarks.events import batch
from benchmarks.kit.process import Process, process
from benchmarks.peers import bare_server
from benchmarks.peers.base import Peer
from benchmarks.peers.pipelined import Pipelined, pipelined
from lavant.v1.event_service_pb2 import EventBatch
from support.server import CHANNEL_OPTIONS


class Bare(Peer):
    """The same bytes and calls as lavant's, and nothing else. Not durable."""

    name = "bare"
    _log_name: ClassVar[str] = ""

    def __init__(self, channel: aio.Channel, published: Pipelined) -> None:
        self._create: Any = channel.unary_unary(bare_server.CREATE)
        self._append: Any = channel.unary_unary(bare_server.APPEND)
        self._stream: Any = channel.unary_stream(bare_server.STREAM)
        self._published = published

    @classmethod
    @asynccontextmanager
    async def serve(cls, folder: Path) -> AsyncIterator[Process]:
        """Run `bare_server.py`."""
        file = [folder / cls._log_name] if cls._log_name else []
        async with process(sys.executable, bare_server.__file__, *file, folder=folder) as server:
            yield server

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, *, width: int = 1) -> AsyncIterator[Self]:
        """Connect, with one publishing call."""
        async with (
            aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel,
            pipelined(channel.stream_stream(bare_server.PUBLISH)(), lambda _: ("",)) as published,
        ):
            yield cls(channel, published)

    async def create(self, run: str) -> None:
        """Create a run."""
        await self._create(run.encode())

    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """Return the message that holds the same events as lavant's batch."""
        events = EventBatch(events=batch(run, first, texts, end=end).events)
        return bare_server.message(run, events.SerializeToString(), end=end)

    async def append(self, encoded: Any) -> None:
        """Send the message, and wait for the answer."""
        await self._published.request("", encoded)

    async def small_run(self, run: str, texts: Sequence[str]) -> None:
        """Create, append and read by a call each."""
        await self.create(run)
        await self._append(self.encode(run, 1, texts, end=True))
        assert await self.read(run) >= sum(map(len, texts))

    async def read(self, run: str) -> int:
        """Read the stream to its end."""
        return sum([len(text) async for text in self.follow(run)])

    async def follow(self, run: str) -> AsyncIterator[str]:
        """Yield the texts as they come."""
        async for data in self._stream(run.encode()):
            for event in EventBatch.FromString(data).events:
                if text := event.text_delta.text:
                    yield text


class BareDurable(Bare):
    """The same, and every batch committed to SQLite before it is acknowledged or shown: all that wait in one commit."""

    name = "bare + SQLite"
    _log_name = "bare.db"
