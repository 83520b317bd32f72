"""A way to a NATS server on which single messages get lost, as they do when a connection breaks or a buffer is full."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Loses = Callable[[bytes], bool]
EOB = b"NATS/1.0 204"  # the status that ends a batch: "End of Batch"


class LossyNats:
    """Passes NATS's protocol on, except for messages to the client that `loses` picks by their headers and content."""

    def __init__(self, server: str) -> None:
        self.address = ""
        self.lost: list[bytes] = []
        self.loses: Loses = lambda _: False
        self._server = server.rpartition(":")
        self._links: set[asyncio.Task[None]] = set()

    def lose(self, which: Loses, times: int = 1) -> None:
        """Lose the next messages of a kind."""
        left = times

        def loses(message: bytes) -> bool:
            nonlocal left
            if left and which(message):
                left -= 1
                return True
            return False

        self.loses = loses

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.close()
        for link in self._links:
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: StreamReader, writer: StreamWriter) -> None:
        host, _, port = self._server
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pass_on(reader, server_writer))
                pumps.create_task(self._answers(server_reader, writer))
        finally:
            writer.close()
            server_writer.close()

    async def _answers(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readuntil(b"\r\n"):
                message = b""
                if line.startswith((b"MSG ", b"HMSG ")):
                    message = await reader.readexactly(int(line.split()[-1]) + 2)
                    if self.loses(message):
                        self.lost.append(message)
                        continue
                writer.write(line + message)
                await writer.drain()
        writer.close()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def nth_of_batch(number: int) -> Loses:
    """A batch's message of a number, counted from 1 again after each end of a batch."""
    seen = 0

    def is_it(message: bytes) -> bool:
        nonlocal seen
        if message.startswith(EOB):
            seen = 0
        elif b"\r\nNats-Num-Pending:" in message:
            seen += 1
            return seen == number
        return False

    return is_it


def end_of_batch(message: bytes) -> bool:
    """The message without which nobody knows that a batch is whole."""
    return message.startswith(EOB)


def acknowledgement(message: bytes) -> bool:
    """Acknowledgements that a message is stored."""
    return b'"stream"' in message and b'"seq"' in message and not message.startswith(b"NATS/1.0")
