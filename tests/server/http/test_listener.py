"""Connections whose peers do nothing, and an application that serves others meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from starlette.types import Message, Receive, Scope, Send

from lavant.server.http import listener
from lavant.server.http.listener import Connection, Listener
from lavant.server.http.middleware import WhilePresent

LIMIT = 20.0
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
Answer = Callable[[Send], Awaitable[None]]


@asynccontextmanager
async def listening(
    answer: Answer, stall_limit: float = 0.2
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """An application that answers like this, and a connection to it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await answer(send)

    serving = Listener(app, max_connections=10, peer_share=0.5, stall_limit=stall_limit)
    port = serving.bind("127.0.0.1", 0)
    await serving.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
    yield reader, writer
    writer.close()
    await serving.stop()


async def test_a_peer_that_takes_nothing_is_cut_off() -> None:
    stopped = asyncio.Event()

    async def much(send: Send) -> None:
        try:
            for _ in range(100):
                await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
        finally:
            stopped.set()

    async with listening(much) as (_, writer), asyncio.timeout(LIMIT):
        writer.write(GET)
        await stopped.wait()


async def test_a_peer_that_takes_little_by_little_gets_all() -> None:
    size = 32 << 20

    async def much(send: Send) -> None:
        await send({"type": "http.response.body", "body": b"x" * size})

    async with listening(much, stall_limit=1) as (reader, writer), asyncio.timeout(LIMIT):
        writer.write(GET)
        read = 0
        while read < size:
            piece = await reader.read(1 << 18)
            assert piece, f"cut off after {read} bytes"
            read += piece.count(b"x")
            await asyncio.sleep(0.02)  # slower than the limit for all of it, faster for each piece


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", GET + b"GET / HTT"])
async def test_a_peer_that_never_asks_is_cut_off(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    async def nothing(send: Send) -> None:
        await asyncio.sleep(0.4)  # An answer may take longer than a request.
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(listener, "Connection", partial(Connection, head_limit=0.2))
    async with listening(nothing) as (reader, writer), asyncio.timeout(LIMIT):
        writer.write(sent)
        with_answer = await reader.read()
        assert with_answer.startswith(b"HTTP/1.1 200") == sent.startswith(GET)


async def test_work_for_a_peer_that_has_left_is_stopped() -> None:
    working, stopped = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            working.set()
            await asyncio.Event().wait()
        finally:
            stopped.set()

    serving = Listener(WhilePresent(app), max_connections=10)
    port = serving.bind("127.0.0.1", 0)
    await serving.start()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(LIMIT):
        writer.write(GET)
        await working.wait()
        assert not stopped.is_set()
        writer.close()
        await stopped.wait()
    await serving.stop()


async def test_a_failure_of_the_application_is_passed_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("it broke")

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    async def send(_: Message) -> None:
        """Nobody listens."""

    with pytest.raises(LookupError, match="it broke"):
        await WhilePresent(app)({"type": "http"}, receive, send)


async def test_one_address_cannot_take_all_connections() -> None:
    async def nothing(send: Send) -> None:
        await send({"type": "http.response.body", "body": b""})

    async with listening(nothing) as (reader, writer), asyncio.timeout(LIMIT):
        address = writer.get_extra_info("peername")
        silent = [await asyncio.open_connection(*address) for _ in range(4)]
        cut, refused = await asyncio.open_connection(*address)
        assert await cut.read() == b""
        others, asking = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
        asking.write(GET)
        assert (await others.readline()).startswith(b"HTTP/1.1 200")
        silent[0][1].close()
        await silent[0][1].wait_closed()
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        for _, one in (*silent, (others, asking), (cut, refused)):
            one.close()
