"""Redis streams with `appendfsync always`: what an append wrote is on disk when it returns."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client

from benchmarks.events import json_events, text_of
from benchmarks.kit.process import Process, free_address, process
from benchmarks.peers.base import Peer
from benchmarks.peers.programs import debian_package, program

PAGE = 1_000


class Redis(Peer):
    """Runs as hashes with an index by time, events as streams; an append is one pipeline."""

    name = "redis"

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def install(cls) -> None:
        """Install Debian's package."""
        debian_package("redis-server")

    @classmethod
    def check(cls) -> None:
        """Find the server."""
        program("redis-server")

    @classmethod
    @asynccontextmanager
    async def serve(cls, folder: Path) -> AsyncIterator[Process]:
        """Run a server that appends to its file, and never rewrites it by itself."""
        address = free_address()
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        growth = ("--auto-aof-rewrite-percentage", "0")
        listen = ("--bind", "127.0.0.1", "--port", address.split(":")[1], "--dir", folder, "--maxclients", "20000")
        async with process(
            program("redis-server"), *listen, *durable, *growth, folder=folder, address=address
        ) as server:
            yield server

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, *, width: int = 1) -> AsyncIterator[Self]:
        """Connect, with a connection per call at once."""
        pool = BlockingConnectionPool.from_url(f"redis://{address}", max_connections=width, timeout=60)
        async with Client.from_pool(pool) as client:
            yield cls(client)

    async def create(self, run: str) -> None:
        """Write the run and its entry in the index."""
        async with self._client.pipeline() as pipe:
            pipe.hset(f"run:{run}", mapping={"name": "agent", "state": "running", "env": "prod"})
            pipe.zadd("runs", {run: time.time()})
            await pipe.execute()

    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """Return the run, its events as JSON, and whether it ends."""
        return run, json_events(first, texts), end

    async def append(self, encoded: Any) -> None:
        """Add all in one pipeline, which is one fsync."""
        run, events, end = encoded
        async with self._client.pipeline(transaction=False) as pipe:
            for event in events:
                pipe.xadd(f"events:{run}", {"d": event})
            if end:
                pipe.hset(f"run:{run}", "state", "succeeded")
            await pipe.execute()

    async def read(self, run: str) -> int:
        """Read by pages."""
        length, after = 0, "-"
        while page := await self._client.xrange(f"events:{run}", after, count=PAGE):
            length += sum(len(text_of(fields[b"d"])) for _, fields in page)
            after = f"({page[-1][0].decode()}"
        return length

    async def follow(self, run: str) -> AsyncIterator[str]:
        """Yield the texts by XREAD, which waits."""
        last = "0"
        while True:
            for identifier, fields in _entries(
                await self._client.xread({f"events:{run}": last}, count=PAGE, block=1_000)
            ):
                last = identifier
                yield text_of(fields[b"d"])


def _entries(answer: Any) -> list[Any]:
    """Return the entries of the one stream in an answer of XREAD: pairs in RESP2, pages by name in RESP3."""
    if isinstance(answer, dict):
        return [entry for pages in answer.values() for page in pages for entry in page]
    return [entry for _, entries in answer or () for entry in entries]
