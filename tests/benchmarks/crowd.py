"""Many readers in one process, by raw sockets: so cheap that the server is what is measured.

`python -m benchmarks.crowd KIND ADDRESS SUBJECT READERS BODY` opens readers and prints `ready`. A line with a number on
its standard input makes it wait until all readers have that many events since the last report, and print the report.
Events carry the time of their publishing as @SECONDS@. Frames of HTTP/2 are parsed only as far as that needs.
"""

import asyncio
import json
import re
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import suppress
from typing import cast

from benchmarks.kit.rounds import P50, P99, latencies

STREAMS_A_CONNECTION = 50  # opened at once: servers refuse some when they come near the usual limit of 100
PLACEHOLDER = b"@@@@@"  # in a body or a subject: the reader's number
STAMP = re.compile(rb"@(\d+\.\d{6})@")
LONGEST_STAMP = 24
_LIMIT = 30.0
_WINDOW = (1 << 31) - 1  # no flow control


def stamped(padding: int = 80) -> str:
    """Return an event's text that says when it was published."""
    return f"@{time.monotonic():.6f}@ {'x' * padding}"


class _Crowd:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.ready = 0
        self.changed = asyncio.Event()

    def found(self, stamps: list[bytes]) -> None:
        now = time.monotonic()
        self.seconds += [now - float(stamp) for stamp in stamps]
        self.changed.set()

    def opened(self) -> None:
        self.ready += 1
        self.changed.set()

    async def wait(self, *, events: int = 0, ready: int = 0) -> None:
        async with asyncio.timeout(_LIMIT):
            while len(self.seconds) < events or self.ready < ready:
                self.changed.clear()
                await self.changed.wait()


class _Connection(asyncio.Protocol, ABC):
    """A connection that counts the stamps it receives; a stamp may be cut by the end of what arrives at once."""

    def __init__(self, crowd: _Crowd) -> None:
        self.crowd = crowd
        self.transport: asyncio.Transport
        self._rest: dict[int, bytes] = defaultdict(bytes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    @abstractmethod
    def data_received(self, data: bytes) -> None: ...

    def scan(self, data: bytes, stream: int = 0) -> None:
        if not self._rest[stream]:
            self.crowd.opened()
        data = self._rest[stream] + data
        end = 0
        if stamps := [*STAMP.finditer(data)]:
            end = stamps[-1].end()
            self.crowd.found([stamp[1] for stamp in stamps])
        # The last byte of an event stays: it marks the stream as open.
        self._rest[stream] = data[max(end - 1, len(data) - LONGEST_STAMP, 0) :]


class _Lines(_Connection):
    """Server-sent events, Redis's protocol and NATS's: all are text."""

    def data_received(self, data: bytes) -> None:
        self.scan(data)


class _Redis(_Lines):
    IDENTIFIER = re.compile(rb"\r\n(\d+-\d+)\r\n")
    subject = b""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if identifiers := self.IDENTIFIER.findall(data):
            self.read(identifiers[-1])

    def read(self, after: bytes) -> None:
        self.transport.write(b"XREAD BLOCK 0 STREAMS %b %b\r\n" % (self.subject, after))


class _Http2(_Connection):
    """One connection with many calls."""

    def __init__(self, crowd: _Crowd) -> None:
        super().__init__(crowd)
        self._received = b""

    def open(self, path: bytes, bodies: list[bytes]) -> None:
        settings = b"\0\x04" + _WINDOW.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
        window = (_WINDOW - 65_535).to_bytes(4, "big")
        self.transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, settings) + _frame(8, 0, 0, window))
        headers = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"localhost"}
        headers |= {b"te": b"trailers", b"content-type": b"application/grpc"}
        # Literal header fields without indexing, HPACK's plainest form.
        block = b"".join(b"\0" + _string(name) + _string(value) for name, value in headers.items())
        for number, body in enumerate(bodies):
            message = b"\0" + len(body).to_bytes(4, "big") + body
            stream = 2 * number + 1
            self.transport.write(_frame(1, 4, stream, block) + _frame(0, 1, stream, message))

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        start, size = 0, len(received)
        while start + 9 <= size:
            end = start + 9 + int.from_bytes(received[start : start + 3], "big")
            if end > size:
                break
            kind, flags = received[start + 3], received[start + 4]
            stream = int.from_bytes(received[start + 5 : start + 9], "big")
            if kind in (0, 1):
                self.scan(received[start + 9 : end] if kind == 0 else b"\0", stream)
            elif kind in (3, 7):
                raise ConnectionError(f"the server refused stream {stream}: {received[start + 9 : end]!r}")
            elif kind in (4, 6) and not flags & 1:
                self.transport.write(_frame(kind, 1, 0, received[start + 9 : end] if kind == 6 else b""))
            start = end
        self._received = received[start:]


def _string(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


async def _open(crowd: _Crowd, kind: str, address: str, subject: str, readers: int, body: bytes) -> None:
    host, port = address.split(":")
    protocol = {"grpc": _Http2, "redis": _Redis}.get(kind, _Lines)
    step = STREAMS_A_CONNECTION if kind == "grpc" else 1
    for first in range(0, readers, step):
        _, connection = await asyncio.get_running_loop().create_connection(lambda: protocol(crowd), host, int(port))
        assert isinstance(connection, _Connection)
        last = min(first + step, readers)
        if isinstance(connection, _Http2):
            bodies = [body.replace(PLACEHOLDER, b"%05d" % number) for number in range(first, last)]
            connection.open(subject.encode(), bodies)
        elif isinstance(connection, _Redis):
            connection.subject = subject.encode()
            connection.read(b"0")
        else:
            connection.transport.write(body)
        await crowd.wait(ready=last)


async def _main(kind: str, address: str, subject: str, readers: int, body: bytes) -> None:
    crowd = _Crowd()
    await _open(crowd, kind, address, subject, readers, body)
    print("ready", flush=True)
    cpu, began = time.process_time(), time.monotonic()
    while line := await asyncio.to_thread(sys.stdin.readline):
        expected = readers * int(line)
        with suppress(TimeoutError):
            await crowd.wait(events=expected)
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        figures = {"delivered": len(crowd.seconds) / expected, "reader cores": share}
        if crowd.seconds:
            found = latencies(crowd.seconds)
            figures |= {P50: found[P50], P99: found[P99]}
        print(json.dumps(figures), flush=True)
        crowd.seconds.clear()
        cpu, began = time.process_time(), time.monotonic()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), bytes.fromhex(sys.argv[5])))
