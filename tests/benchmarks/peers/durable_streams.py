"""The reference server of Durable Streams, with files; events are JSON."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson

from benchmarks.events import json_events
from benchmarks.kit.process import Process, free_address, process
from benchmarks.peers.base import Peer, UnavailableError
from benchmarks.peers.programs import program
from benchmarks.peers.programs import run as run_installer

PACKAGE = "@durable-streams/server"
HOME = Path.home() / ".cache" / "lavant-bench" / "durable-streams"  # kept: the package is large
HEADERS = {"content-type": "application/json"}


class DurableStreams(Peer):
    """A stream per run; an append is one POST."""

    name = "durable-streams"

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    @classmethod
    def install(cls) -> None:
        """Install the npm package."""
        HOME.mkdir(parents=True, exist_ok=True)
        run_installer(program("npm"), "install", "--silent", "--no-fund", "--no-audit", PACKAGE, folder=HOME)

    @classmethod
    def check(cls) -> None:
        """Find node and the package."""
        program("node")
        if not (HOME / "node_modules" / PACKAGE).exists():
            raise UnavailableError(f"{PACKAGE} is not installed")

    @classmethod
    @asynccontextmanager
    async def serve(cls, folder: Path) -> AsyncIterator[Process]:
        """Run the server; its script lies beside the package, where node looks for it."""
        address = free_address()
        script = shutil.copy(Path(__file__).with_suffix(".mjs"), HOME)
        command = (program("node"), script, address.split(":")[1], folder)
        async with process(*command, folder=folder, address=address) as server:
            yield server

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, *, width: int = 1) -> AsyncIterator[Self]:
        """Connect, with a connection per call at once."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=width)) as session:
            yield cls(session, address)

    async def create(self, run: str) -> None:
        """Create the stream."""
        await self._call("PUT", run)

    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """Return the run and the array of its events."""
        return run, b"[" + b",".join(json_events(first, texts)) + b"]"

    async def append(self, encoded: Any) -> None:
        """Post the events; a stream has no end."""
        run, body = encoded
        await self._call("POST", run, body)

    async def read(self, run: str) -> int:
        """Read in as many pieces as the server makes of it."""
        length, offset = 0, "-1"
        while True:
            body, headers = await self._call("GET", run, offset=offset)
            length += sum(len(event["text"]) for event in orjson.loads(body or b"[]"))
            offset = headers["stream-next-offset"]
            if "stream-up-to-date" in headers:
                return length

    async def follow(self, run: str) -> AsyncIterator[str]:
        """Yield the texts by long polling."""
        offset = "-1"
        while True:
            body, headers = await self._call("GET", run, offset=offset, live="long-poll")
            offset = headers["stream-next-offset"]
            for event in orjson.loads(body or b"[]"):
                yield event["text"]

    async def _call(self, method: str, run: str, body: bytes | None = None, **parameters: str) -> Any:
        url = f"http://{self._address}/v1/stream/{run}"
        async with self._session.request(method, url, data=body, params=parameters, headers=HEADERS) as response:
            response.raise_for_status()
            return await response.read(), response.headers
