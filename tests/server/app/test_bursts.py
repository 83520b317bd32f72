"""Many calls at once on one connection, in good faith and not."""

import asyncio
import struct
from collections import Counter

from grpc import aio

from lavant.v1.run_pb2 import RunSettings
from lavant.v1.run_service_pb2 import CreateRunRequest, GetRunRequest
from lavant.v1.run_service_pb2_grpc import RunServiceStub
from support.calls import create
from support.server import ServerProcess, connected

AT_ONCE = 1_000
RESETS = 60_000
RESETS_A_WRITE = 100
HEADERS, RST_STREAM, SETTINGS, PING = 1, 3, 4, 6
LAST_PING = b"finished"
END_HEADERS, ACK = 4, 1
REFUSED_STREAM, CANCEL = 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = b"/lavant.v1.RunService/GetRun"


async def test_a_thousand_calls_at_once_on_one_connection_are_all_answered(server_process: ServerProcess) -> None:
    request = CreateRunRequest(settings=RunSettings(name="burst"))
    async with aio.insecure_channel(server_process.target, options=[("grpc.enable_retries", 0)]) as channel:
        stub = RunServiceStub(channel)
        for _ in range(2):
            answers = await asyncio.gather(*(stub.CreateRun(request, timeout=60) for _ in range(AT_ONCE)))
            assert len({answer.run.run_id for answer in answers}) == AT_ONCE


async def test_rapid_resets_of_one_client_are_refused_and_fail_no_call_of_others(server_process: ServerProcess) -> None:
    async with connected(server_process.target) as stubs:
        await create(stubs)
        flooding = asyncio.create_task(reset_streams(server_process.target))
        answered = 0
        while not flooding.done() or not answered:
            await stubs.runs.GetRun(GetRunRequest(run_id="run"), timeout=60)
            answered += 1
        assert (await flooding)[REFUSED_STREAM] > RESETS / 2
        await stubs.runs.GetRun(GetRunRequest(run_id="run"), timeout=60)


async def reset_streams(target: str) -> Counter[int]:
    """Open streams and reset each at once; return the error codes with which the server reset them, counted."""
    host, port = target.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))  # before it, gRPC takes few requests
    counting = asyncio.create_task(count_resets(reader))
    for first in range(1, 2 * RESETS, 2 * RESETS_A_WRITE):
        for stream in range(first, first + 2 * RESETS_A_WRITE, 2):
            writer.write(frame(HEADERS, END_HEADERS, stream, REQUEST))
            writer.write(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))
        await writer.drain()
    writer.write(frame(PING, 0, 0, LAST_PING))
    codes = await counting
    writer.close()
    return codes


async def count_resets(reader: asyncio.StreamReader) -> Counter[int]:
    """Count the server's resets by their error codes until it acknowledges the last ping."""
    codes: Counter[int] = Counter()
    while True:
        head = await reader.readexactly(9)
        body = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == RST_STREAM:
            codes[int.from_bytes(body, "big")] += 1
        elif head[3] == PING and body == LAST_PING:
            return codes


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def literal(name: bytes, value: bytes) -> bytes:
    """A header of HPACK, in full."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


REQUEST = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", PATH),
        (b":authority", b"lavant"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)
