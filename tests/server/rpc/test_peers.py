"""What one address can take of a server: calls, half messages, answers that nobody reads. Others are served."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2

from lavant.server.app import services
from lavant.server.rpc import limits, receiving
from lavant.v1.event_service_pb2 import ListEventsRequest, PublishEventsRequest, PublishEventsResponse
from lavant.v1.run_service_pb2 import GetRunRequest
from server.rpc.http2 import DATA, Connection, connected, frame
from support.calls import append, create, get, until
from support.events import batch_of, run_started, text_delta
from support.events import message_started as message
from support.server import CHANNEL_OPTIONS, Server, serving
from support.status import refused

GET = "/lavant.v1.RunService/GetRun"
APPEND = "/lavant.v1.EventService/AppendEvents"
LIST = "/lavant.v1.EventService/ListEvents"
CHECK = "/grpc.health.v1.Health/Check"
UNKNOWN = "/grpc.health.v1.Health/Unknown"
PUBLISH = "/lavant.v1.EventService/PublishEvents"
LIMIT = 20.0
SMALL = 70_000  # bytes: a window, and what was read of it


async def call_of_another_address(server: Server, path: str, data: bytes) -> None:
    """Make a call from 127.0.0.2, which must be answered."""
    host, port = server.target.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0))
    connection = Connection.begun(reader, writer)
    stream = connection.call(path, data)
    while (found := await connection.read()).kind != DATA:
        assert found.stream == stream
    writer.close()


async def check_health(server: Server) -> None:
    check: Any = server.stubs.channel.unary_unary(CHECK)
    answer = await check(health_pb2.HealthCheckRequest().SerializeToString(), timeout=LIMIT)
    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


async def test_half_open_calls_of_one_address_keep_out_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_MAX_UNARY_CALLS", 10)
    async with serving(tmp_path, max_streams=10, peer_share=0.5) as server, asyncio.timeout(LIMIT):
        await create(server.stubs)
        async with connected(server.target) as flood:
            streams = [flood.call(GET) for _ in range(30)]
            await flood.ended(set(streams[10:]))  # refused at once, and the first ten are not
            with refused("QUOTA_EXCEEDED") as refusal:
                await server.stubs.runs.GetRun(GetRunRequest(run_id="run"))
            assert refusal.metadata == {"kind": "calls", "limit": "10"}
            await check_health(server)
            await call_of_another_address(server, GET, GetRunRequest(run_id="run").SerializeToString())
        await until(lambda: served(server))


async def served(server: Server) -> bool:
    try:
        await server.stubs.runs.GetRun(GetRunRequest(run_id="run"))
    except aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


async def test_half_messages_of_one_address_delay_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_ARRIVING", 4)
    async with serving(tmp_path, peer_share=0.5) as server, asyncio.timeout(LIMIT / 2):  # a request may take LIMIT
        await create(server.stubs)
        async with connected(server.target) as flood:
            for _ in range(20):
                flood.writer.write(frame(DATA, 0, flood.call(APPEND), half_a_message(1_000)))
            await flood.writer.drain()
            await check_health_soon(server)
            await call_of_another_address(server, GET, GetRunRequest(run_id="run").SerializeToString())
        await server.stubs.runs.GetRun(GetRunRequest(run_id="run"))


async def test_no_more_than_a_window_is_kept_of_a_request_whose_turn_has_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_ARRIVING", 1)
    async with serving(tmp_path, peer_share=1) as server, asyncio.timeout(LIMIT / 2), connected(server.target) as flood:
        first, second = (flood.call(APPEND) for _ in range(2))
        for stream in (first, second):
            flood.writer.write(frame(DATA, 0, stream, half_a_message(3_000)))
        for _ in range(20):  # what the server grants has come before its answers to these
            flood.writer.write(frame(DATA, 0, second, b"x" * 3_000))
            await flood.ended({flood.call(UNKNOWN)})
        assert flood.granted[first] > SMALL, "the request whose turn it is may arrive"
        assert flood.initial_window + flood.granted[second] <= SMALL


def half_a_message(size: int) -> bytes:
    """Return the first bytes of a message of 4 MB."""
    return b"\0" + struct.pack(">I", 4_000_000) + b"x" * size


async def test_half_messages_of_publishing_calls_are_bounded_by_their_number(tmp_path: Path) -> None:
    async with serving(tmp_path, max_publishing_calls=4, peer_share=0.5) as server, asyncio.timeout(LIMIT):
        await create(server.stubs)
        alive = PublishEventsRequest(batches=[batch_of([run_started()])])
        async with connected(server.target) as flood:
            streams = [flood.call(PUBLISH) for _ in range(6)]
            for stream in streams:
                flood.writer.write(frame(DATA, 0, stream, half_a_message(1_000)))
            await flood.ended(set(streams[2:]))  # refused at once, and the first two are not
            publishing = server.stubs.events.PublishEvents()
            with refused("QUOTA_EXCEEDED") as refusal:
                await publishing.read()
            assert refusal.metadata == {"kind": "publishing_calls", "limit": "2"}
            await get(server.stubs)
            await call_of_another_address(server, PUBLISH, alive.SerializeToString())
        await until(lambda: publishes(server, alive))


async def publishes(server: Server, request: PublishEventsRequest) -> bool:
    """Return whether a publishing call of this address is served."""
    call = server.stubs.events.PublishEvents()
    try:
        await call.write(request)
        await call.done_writing()
        return isinstance(await call.read(), PublishEventsResponse)
    except aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False


async def check_health_soon(server: Server) -> None:
    """Wait until the server has begun all calls that were sent before: their turns are taken then."""
    connection = await aio.insecure_channel(server.target, options=CHANNEL_OPTIONS).__aenter__()
    try:
        unknown: Any = connection.unary_unary(UNKNOWN)
        with pytest.raises(aio.AioRpcError):
            await unknown(b"", timeout=LIMIT)
    finally:
        await connection.close()


async def test_answers_that_nobody_reads_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_ANSWER_BYTES", 1_000_000)
    async with serving(tmp_path, peer_share=0.5) as server, asyncio.timeout(LIMIT):
        await create(server.stubs)
        await append(server.stubs, [run_started(), message(), text_delta("x" * 200_000)])
        wanted = ListEventsRequest(run_id="run")
        async with connected(server.target, window=5_000) as greedy:
            streams = [greedy.call(LIST, wanted.SerializeToString()) for _ in range(3)]
            await greedy.ended(set(streams[2:]))
            with refused("QUOTA_EXCEEDED") as refusal:
                await server.stubs.events.ListEvents(wanted)
            assert refusal.metadata == {"kind": "answer_bytes", "limit": "500000"}
            await call_of_another_address(server, LIST, wanted.SerializeToString())
            for stream in streams[:2]:
                greedy.open_window(stream, 1 << 20)
            await greedy.ended(set(streams[:2]))
        assert len((await server.stubs.events.ListEvents(wanted)).events) == 3


async def test_a_health_check_that_does_not_arrive_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "REQUEST_LIMIT", 0.2)
    async with serving(tmp_path) as server, connected(server.target) as peer, asyncio.timeout(LIMIT):
        await peer.ended({peer.call(CHECK)})
        await check_health(server)
