"""Calls whose request never comes, or never comes whole: the wait for it is bounded, whoever makes them."""

import asyncio
import struct
from typing import Any

import pytest

from lavant.server.rpc import receiving
from server.rpc.raw import METHODS
from support.calls import create, get
from support.server import Server
from support.status import refused

LIMIT = 20.0
ONE_MESSAGE = sorted(path for path, method in METHODS.items() if not method.client_streaming)
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "REQUEST_LIMIT", 0.3)


@pytest.mark.parametrize("path", ONE_MESSAGE)
async def test_a_request_that_does_not_come_ends_the_call(server: Server, path: str) -> None:
    call: Any = server.stubs.channel.stream_unary(path)(timeout=LIMIT)
    with refused("INVALID_FIELD", path="request") as refusal:
        await call
    assert "did not arrive whole within 0.3 s" in refusal.status.message


@pytest.mark.parametrize("path", ONE_MESSAGE)
async def test_a_call_without_a_request_is_refused_at_once(
    server: Server, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "REQUEST_LIMIT", LIMIT)
    call: Any = server.stubs.channel.stream_unary(path)(timeout=LIMIT)
    await call.done_writing()
    with refused("INVALID_FIELD", path="request") as refusal:
        await call
    assert "is missing" in refusal.status.message


async def test_half_a_message_is_not_kept(server: Server) -> None:
    """As many calls as a connection may have, each with the first bytes of a large message."""
    host, port = server.target.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0, b""))
    streams = {2 * number + 1 for number in range(50)}
    for stream in streams:
        writer.write(frame(_HEADERS, _END_HEADERS, stream, headers("/lavant.v1.EventService/AppendEvents")))
        writer.write(frame(_DATA, 0, stream, b"\0" + struct.pack(">I", 1_000_000) + b"x" * 1_000))
    await create(server.stubs)
    ended: set[int] = set()
    async with asyncio.timeout(LIMIT):
        while ended != streams:
            head = await reader.readexactly(9)
            kind, flags, stream = head[3], head[4], struct.unpack(">I", head[5:])[0]
            await reader.readexactly(int.from_bytes(head[:3]))
            if kind == _HEADERS and flags & _END_STREAM:
                ended.add(stream)
    assert (await get(server.stubs)).run_id == "run"
    writer.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2: https://www.rfc-editor.org/rfc/rfc9113#section-4.1."""
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
