"""lavant, by the generated stubs and by its Python client."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

from benchmarks.events import batch, create_request
from benchmarks.kit.process import Process, process
from benchmarks.peers.base import Peer, Publish
from benchmarks.peers.pipelined import Pipelined, pipelined
from lavant.client import AsyncClient
from lavant.v1.event_service_pb2 import (
    PublishEventsRequest,
    PublishEventsResponse,
    StreamEventsRequest,
    StreamEventsResponse,
)
from support.server import Stubs, connected

PUBLISH = "/lavant.v1.EventService/PublishEvents"
STREAM = "/lavant.v1.EventService/StreamEvents"
_consumers = count(1)


@asynccontextmanager
async def serve(folder: Path, *more: str, store: str = "") -> AsyncIterator[Process]:
    """Run a lavant server until the block's end; `line` has its HTTP address too."""
    command = (sys.executable, "-m", "lavant.server", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    options = ("--admin", "off", "--store", store or f"sqlite:///{folder}/lavant.db", "--log-level", "warning")
    async with process(*command, *options, *more, folder=folder) as server:
        server.address = server.line.split("grpc=")[1].split()[0]
        yield server


def http_address(server: Process) -> str:
    """Return where a server of `serve` serves HTTP."""
    return server.line.split("http=")[1].split()[0]


class Lavant(Peer):
    """lavant by the generated stubs: requests are bytes, as those of the systems beside it are."""

    name = "lavant"
    serve = staticmethod(serve)

    def __init__(self, stubs: Stubs, published: Pipelined) -> None:
        self._stubs = stubs
        self._stream: Any = stubs.channel.unary_stream(STREAM)
        self._published = published

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, *, width: int = 1) -> AsyncIterator[Self]:
        """Connect, with one PublishEvents call for all runs."""
        async with (
            connected(address) as stubs,
            pipelined(stubs.channel.stream_stream(PUBLISH)(), _answered_runs) as published,
        ):
            yield cls(stubs, published)

    async def create(self, run: str) -> None:
        """Create a run with two labels."""
        await self._stubs.runs.CreateRun(create_request(run))

    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """Return the run and the serialized request."""
        return run, PublishEventsRequest(batches=[batch(run, first, texts, end=end)]).SerializeToString()

    async def append(self, encoded: Any) -> None:
        """Send the request, and wait for its receipt."""
        await self._published.request(*encoded)

    async def small_run(self, run: str, texts: Sequence[str]) -> None:
        """Create the run with its only batch, and read it."""
        request = PublishEventsRequest(batches=[batch(run, 1, texts, end=True, create=True)])
        await self._published.request(run, request.SerializeToString())
        assert await self.read(run) >= sum(map(len, texts))

    async def read(self, run: str) -> int:
        """Read by StreamEvents."""
        length, request = 0, StreamEventsRequest(run_id=run, consumer_id=f"bench-{next(_consumers)}")
        async for data in self._stream(request.SerializeToString()):
            for event in StreamEventsResponse.FromString(data).events.events:
                length += len(event.text_delta.text)
        return length


def _answered_runs(data: bytes) -> tuple[str, ...]:
    answers = PublishEventsResponse.FromString(data).answers
    assert all(answer.HasField("receipt") for answer in answers), answers
    return tuple(answer.run_id for answer in answers)


class LavantClient(Peer):
    """lavant by its Python client, as an agent and a watcher use it."""

    name = "lavant"
    serve = staticmethod(serve)

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, *, width: int = 1) -> AsyncIterator[Self]:
        """Connect; one client makes all calls."""
        async with AsyncClient(address) as client:
            yield cls(client)

    async def create(self, run: str) -> None:
        """Create a run with a label."""
        await self.client.runs.create("agent", run_id=run, labels={"env": "prod"})

    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """The client has no such step."""
        raise NotImplementedError

    async def append(self, encoded: Any) -> None:
        """The client appends within `producing` only."""
        raise NotImplementedError

    async def read(self, run: str) -> int:
        """Read all events."""
        return sum([len(text) async for text in self.follow(run)])

    async def follow(self, run: str) -> AsyncIterator[str]:
        """Yield the texts as they come."""
        async for event in self.client.runs.stream(run):
            if event.type == "text_delta":
                yield event.data.text

    @asynccontextmanager
    async def producing(self, run: str) -> AsyncIterator[Publish]:
        """Start a run; yields its `text` method."""
        async with self.client.runs.start("agent", run_id=run) as started:
            await started.flush()
            yield started.text

    async def small_run(self, run: str, texts: Sequence[str]) -> None:
        """Start a run, say all texts, leave its block, read it."""
        async with self.client.runs.start("agent", run_id=run, labels={"env": "prod"}) as started:
            for text in texts:
                await started.text(text)
        assert await self.read(run) >= sum(map(len, texts))
