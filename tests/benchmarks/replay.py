"""Replay of a stored run to one reader that accesses every event."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import grpc
from grpc import aio

from benchmarks.events import TEXT
from benchmarks.kit.process import Process, process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import SERVER_CPU, Bench, Figures, Meter
from benchmarks.peers import bare_server
from benchmarks.peers.bare import Bare
from benchmarks.peers.base import Peer, at_once
from benchmarks.peers.lavant import STREAM, Lavant, serve
from lavant.v1.event_service_pb2 import EventBatch, StreamEventsRequest, StreamEventsResponse
from support.certificates import Authority
from support.server import CHANNEL_OPTIONS

Measured: TypeAlias = dict[str, list[Figures]]
Credentials: TypeAlias = grpc.ChannelCredentials | None
RUN = "replay"
BATCH = 500
REQUEST = StreamEventsRequest(run_id=RUN, consumer_id="bench").SerializeToString()


async def run(bench: Bench) -> list[Table]:
    """Compare with the same frames from a bare server, which has them in memory: without TLS, and both with it."""
    events = bench.size(500_000, quick=50_000)
    title = f"replay of {events:,} events by one reader, from the same frames"
    async with serve(bench.subfolder("lavant")) as server, Bare.serve(bench.subfolder("bare")) as bare:
        async with Lavant.connect(server.address) as connection:
            await fill(connection, RUN, events)
        frames = await _frames(server.address)
        await _fill_bare(bare, frames, None)
        plain = await _compared(bench, server, bare, events, None)
    authority = Authority(bench.subfolder("tls"))
    pair = authority.server()
    flags = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    credentials = authority.channel_credentials()
    async with (
        serve(bench.subfolder("lavant"), *flags) as server,
        process(sys.executable, bare_server.__file__, "", *pair, folder=bench.subfolder("bare tls")) as bare,
    ):
        await _fill_bare(bare, frames, credentials)
        encrypted = await _compared(bench, server, bare, events, credentials)
    return [
        _table("replay", title, plain, 0.9),
        _table("replay-tls", f"{title}, over TLS", encrypted, 0.8),
    ]


def _table(name: str, title: str, measured: Measured, at_least: float) -> Table:
    aims = [Aim(unit="events/s", beside="bare", at_least=at_least)]
    return Table(name=name, title=title, measured=measured, aims=aims, recorded=[SERVER_CPU], baseline="bare")


async def _compared(bench: Bench, server: Process, bare: Process, events: int, credentials: Credentials) -> Measured:
    name = RUN.encode()
    return await bench.interleaved(
        {
            "lavant": partial(_read, server, credentials, STREAM, REQUEST, _lavant_events, events),
            "bare": partial(_read, bare, credentials, bare_server.STREAM, name, EventBatch.FromString, events),
        }
    )


async def _fill_bare(bare: Process, frames: list[EventBatch], credentials: Credentials) -> None:
    async with _channel(bare, credentials) as channel:
        create: Any = channel.unary_unary(bare_server.CREATE)
        append: Any = channel.unary_unary(bare_server.APPEND)
        await create(RUN.encode())
        for frame in frames:
            await append(bare_server.message(RUN, frame.SerializeToString()))
        await append(bare_server.message(RUN, b"", end=True))


def _channel(server: Process, credentials: Credentials) -> aio.Channel:
    if credentials is None:
        return aio.insecure_channel(server.address, options=CHANNEL_OPTIONS)
    return aio.secure_channel(server.address, credentials, options=CHANNEL_OPTIONS)


async def fill(connection: Peer, run_id: str, events: int, texts: int = BATCH) -> None:
    """Write a finished run in batches of so many texts."""
    await connection.create(run_id)
    batches = events // texts

    async def append(number: int) -> None:
        first, end = 1 + number * texts, number == batches - 1
        await connection.append(connection.encode(run_id, first, [TEXT] * texts, end=end))

    await at_once(1, batches, append)


async def _frames(address: str) -> list[EventBatch]:
    async with aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        call: Any = channel.unary_stream(STREAM)
        return [_lavant_events(data) async for data in call(REQUEST)]


def _lavant_events(data: bytes) -> EventBatch:
    return StreamEventsResponse.FromString(data).events


async def _read(
    server: Process,
    credentials: Credentials,
    method: str,
    request: bytes,
    events_of: Callable[[bytes], EventBatch],
    expected: int,
    _: int,
) -> Figures:
    seen = characters = 0
    async with _channel(server, credentials) as channel:
        with Meter(server) as meter:
            call: Any = channel.unary_stream(method)
            async for data in call(request):
                for event in events_of(data).events:
                    seen += 1
                    characters += len(event.text_delta.text) + (event.sequence & 1)
    assert seen == expected + 3, f"{seen} events came, not {expected + 3}"
    return meter.figures("events", seen)
