"""A proxy that shows a page in HTML over HTTP/2, as one without a live server does, and later passes calls on."""

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from types import TracebackType
from typing import Self

PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
FRAME_HEAD = 9
DATA, HEADERS, SETTINGS, GOAWAY = 0, 1, 4, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
BODY = b"<html><body><h1>503 Service Unavailable</h1></body></html>"
# HPACK: literals without indexing, with names of the static table: 8 is :status, 31 content-type.
HEAD = b"\x08\x03503" + b"\x0f\x10\x09text/html"


class WebPage:
    """Answers the first calls with status 503 and a page; connections after that are passed on to a server."""

    def __init__(self, server: str, *, pages: int) -> None:
        self.target = ""
        self.shown = 0
        self._server = server
        self._pages = pages
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()
        self.target = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        work = self._show(reader, writer) if self.shown < self._pages else self._pass_on(reader, writer)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _show(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one call, and close the connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(_frame(SETTINGS))
            await reader.readexactly(PREFACE)
            while True:
                head = await reader.readexactly(FRAME_HEAD)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == SETTINGS and not head[4] & ACK:
                    writer.write(_frame(SETTINGS, ACK))
                if head[3] == HEADERS:
                    stream = int.from_bytes(head[5:], "big")
                    self.shown += 1
                    writer.write(_frame(HEADERS, END_HEADERS, stream, HEAD) + _frame(DATA, END_STREAM, stream, BODY))
                    writer.write(_frame(GOAWAY, payload=head[5:] + bytes(4)))
                    await writer.drain()
                    break
            await reader.read()  # until the client closes it
        writer.close()

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        host, _, port = self._server.partition(":")
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))
        finally:
            writer.close()
            server_writer.close()


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
