"""NATS JetStream with `sync_interval: always`: a message is on disk when its publishing returns."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import nats
from nats.js import JetStreamContext
from nats.js.errors import BadRequestError

from benchmarks.events import json_events, text_of
from benchmarks.kit.process import Process, process
from benchmarks.peers.base import Peer
from benchmarks.peers.programs import program
from support.nats import free_ports

PENDING = 4_000
SUBJECT = "bench"


class Nats(Peer):
    """One stream, a subject per run, a message per event; nats-py publishes a batch asynchronously."""

    name = "nats"

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream

    @classmethod
    def check(cls) -> None:
        """Find the server, which a package of the `dev` group brings."""
        program("nats-server")

    @classmethod
    @asynccontextmanager
    async def serve(cls, folder: Path) -> AsyncIterator[Process]:
        """Run one server."""
        [port] = free_ports(1)
        async with process(
            program("nats-server"), "-c", _configuration(folder, port), folder=folder, address=f"127.0.0.1:{port}"
        ) as server:
            yield server

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, *, width: int = 1, replicas: int = 1) -> AsyncIterator[Self]:
        """Connect to some servers, and create the stream if it does not exist."""
        client = await nats.connect([f"nats://{server}" for server in address.split(",")])
        jetstream = client.jetstream(publish_async_max_pending=PENDING)
        with suppress(BadRequestError):  # another connection has created it
            await jetstream.add_stream(
                name="BENCH", subjects=[f"{SUBJECT}.>"], allow_direct=True, num_replicas=replicas
            )
        yield cls(jetstream)
        await client.close()

    async def create(self, run: str) -> None:
        """Publish the run."""
        await self._jetstream.publish(f"{SUBJECT}.runs.{run}", b'{"name":"agent","state":"running"}')

    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """Return the run and its messages, of which an end is one."""
        return run, json_events(first, texts), end

    async def append(self, encoded: Any) -> None:
        """Publish the messages, and wait until all are acknowledged."""
        run, events, end = encoded
        subject = f"{SUBJECT}.events.{run}"
        acknowledged = [await self._jetstream.publish_async(subject, event, wait_stall=30) for event in events]
        await asyncio.gather(*acknowledged)
        if end:
            await self._jetstream.publish(subject, b"")

    async def read(self, run: str) -> int:
        """Read by an ordered consumer, to the empty message that ends a run."""
        length = 0
        async for text in self.follow(run):
            length += len(text)
        return length

    async def follow(self, run: str) -> AsyncIterator[str]:
        """Yield the texts by an ordered consumer."""
        subscription = await self._jetstream.subscribe(f"{SUBJECT}.events.{run}", ordered_consumer=True)
        async for message in subscription.messages:
            if not message.data:
                break
            yield text_of(message.data)
        await subscription.unsubscribe()


def _configuration(folder: Path, port: int) -> Path:
    file = folder / "nats.conf"
    file.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}", sync_interval: always }}\n')
    return file
