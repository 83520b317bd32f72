"""A TCP proxy that cuts connections where it hurts: in the middle of frames, abruptly, or on one side alone."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections import Counter
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Self

MANNERS = ("reset", "fin", "orphan")
REFUSED_IN = 8
LEAST = 512  # bytes: enough for both sides to greet each other, so that cuts find them at work
_CHUNK = 1 << 16


class Proxy:
    """Passes bytes on to a server until as many have passed as the connection was given at random.

    `most_up` and `most_down` bound the bytes to and from the server, None: without end; `least` bounds both.
    In between, small numbers come as often as large ones. A connection ends by RST, by FIN, or for the
    client alone: the server still believes in that one. One in eight is refused. `cuts` counts what
    really hit, by manner; `connections` those that were let in.
    """

    def __init__(
        self,
        server: str,
        random: Random,
        *,
        most_up: int | None = None,
        most_down: int | None = None,
        least: int = LEAST,
    ) -> None:
        self.target = ""
        self.cuts: Counter[str] = Counter()
        self._server = server.rpartition(":")
        self._random = random
        self._least, self._most_up, self._most_down = least, most_up, most_down
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.connections = 0
        self._dead = 0
        self._is_gone = False
        self._held = 0

    @property
    def hits(self) -> int:
        """How many connections at work were cut."""
        return sum(self.cuts[manner] for manner in MANNERS)

    @property
    def is_holding(self) -> bool:
        """Whether bytes came in that a stall holds up."""
        return self._held > 0

    def check(self, at_least: int) -> None:
        """Fail unless so many cuts hit: the test says nothing then."""
        assert self.hits >= at_least, f"invalid: only {self.hits} cuts hit, of {at_least} that were wanted"

    def stall(self) -> None:
        """Pass nothing on until `release`; connections come in and stay open."""
        self._flowing.clear()

    def release(self) -> None:
        """Pass on what was held back, and all that follows."""
        self._held = 0
        self._flowing.set()

    def black_hole(self) -> None:
        """Lose without a word what comes over the connections there are, either way; new ones work."""
        self._dead = self.connections

    def cut(self) -> None:
        """Cut the connections there are."""
        for writer in self._writers:
            _reset(writer)

    def vanish(self) -> None:
        """Cut every connection and refuse new ones, for good: as if the server were gone."""
        self._is_gone = True
        self.cut()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()
        self.target = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.close()
        for task in self._links:
            task.cancel()
        if self._links:
            await asyncio.wait(self._links)
        for writer in self._writers:
            _reset(writer)
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writers.add(writer)
        cuts_at_all = self._most_up is not None or self._most_down is not None
        if self._is_gone or (cuts_at_all and not self._random.randrange(REFUSED_IN)):
            self.cuts["refused"] += 1
            _reset(writer)
            return
        self.connections += 1
        task = asyncio.create_task(self._link(reader, writer, self.connections))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _link(self, reader: StreamReader, writer: StreamWriter, number: int) -> None:
        host, _, port = self._server
        up, down = self._bytes_until_cut(self._most_up), self._bytes_until_cut(self._most_down)
        manner = self._random.choice(MANNERS)
        try:
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            _reset(writer)
            return
        self._writers.add(server_writer)
        pumps = {
            asyncio.create_task(self._pump(reader, server_writer, up, number)),
            asyncio.create_task(self._pump(server_reader, writer, down, number)),
        }
        try:
            done, _pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
        if not any(pump.result() for pump in done):
            writer.close()
            server_writer.close()
            return
        self.cuts[manner] += 1
        if manner == "fin":
            writer.close()
            server_writer.close()
        else:
            _reset(writer)
            if manner == "reset":
                _reset(server_writer)

    async def _pump(self, reader: StreamReader, writer: StreamWriter, left: float, number: int) -> bool:
        """Pass bytes on; return whether as many have passed as may, rather than that one side has ended."""
        with suppress(ConnectionError):
            while True:
                data = await reader.read(_CHUNK)
                if number <= self._dead:
                    await asyncio.Event().wait()
                if not data:
                    return False
                if not self._flowing.is_set():
                    self._held += len(data)
                    await self._flowing.wait()
                writer.write(data if len(data) < left else data[: int(left)])
                await writer.drain()
                left -= len(data)
                if left <= 0:
                    return True
        return False

    def _bytes_until_cut(self, most: int | None) -> float:
        return float("inf") if most is None else self._least * (most / self._least) ** self._random.random()


def _reset(writer: StreamWriter) -> None:
    """End a connection by RST; what was not sent yet is lost."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
