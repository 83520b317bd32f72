"""Frames of HTTP/2 as no proper client sends them: https://www.rfc-editor.org/rfc/rfc9113."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Frame(NamedTuple):
    """A frame that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Connection:
    """A connection that answers SETTINGS and PING, and nothing else by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.initial_window = 65_535  # that the server grants to each stream
        self.granted: Counter[int] = Counter()  # what it has granted since, by stream
        self._reader = reader
        self._next = 1

    @classmethod
    def begun(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int = 65_535) -> "Connection":
        """Send what a connection begins with: an initial window for each stream, and much for all of them."""
        writer.write(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window)))
        writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
        return cls(reader, writer)

    def call(self, path: str, message: bytes | None = None) -> int:
        """Begin a call, with a message if there is one; return its stream."""
        stream, self._next = self._next, self._next + 2
        self.writer.write(frame(HEADERS, END_HEADERS, stream, headers(path)))
        if message is not None:
            body = b"\0" + struct.pack(">I", len(message)) + message
            self.writer.write(frame(DATA, END_STREAM, stream, body))
        return stream

    def open_window(self, stream: int, size: int) -> None:
        """Accept that many more bytes of a stream; 0: of the connection."""
        self.writer.write(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size)))

    async def read(self) -> Frame:
        """Return the next frame that is not about the connection itself."""
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
            kind, flags, stream = head[3], head[4], struct.unpack(">I", head[5:])[0]
            if kind == WINDOW_UPDATE:
                self.granted[stream] += struct.unpack(">I", payload)[0]
            elif kind == SETTINGS and not flags & ACK:
                settings = dict(struct.iter_unpack(">HI", payload))
                self.initial_window = settings.get(INITIAL_WINDOW_SIZE, self.initial_window)
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in (DATA, HEADERS):
                return Frame(kind, flags, stream, payload)

    async def ended(self, streams: set[int]) -> None:
        """Read until the server has ended all of these streams with a status."""
        left = set(streams)
        while left:
            found = await self.read()
            if found.kind == HEADERS and found.flags & END_STREAM:
                left.discard(found.stream)


@asynccontextmanager
async def connected(target: str, window: int = 65_535) -> AsyncIterator[Connection]:
    """Connect to a server, with an initial window for each stream."""
    host, port = target.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Connection.begun(reader, writer, window)
    finally:
        writer.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def headers(path: str) -> bytes:
    """A call's headers, each written out: https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2."""
    pairs = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    texts = (text.encode() for pair in pairs.items() for text in pair)
    written = [bytes((len(text),)) + text for text in texts]
    return b"".join(b"\0" + name + value for name, value in zip(written[::2], written[1::2], strict=True))
