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
from lavant.v1.event_service_pb2 import ListEventsRequest
from lavant.v1.run_service_pb2 import GetRunRequest
from server.rpc.http2 import DATA, Connection, connected, frame
from support.calls import append, create, until
from support.events import message_started as message
from support.events import run_started, text_delta
from support.server import CHANNEL_OPTIONS, Server, serving
from support.status import refused

GET = "/lavant.v1.RunService/GetRun"
APPEND = "/lavant.v1.EventService/AppendEvents"
LIST = "/lavant.v1.EventService/ListEvents"
CHECK = "/grpc.health.v1.Health/Check"
LIMIT = 20.0


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
                flood.writer.write(
                    frame(DATA, 0, flood.call(APPEND), b"\0" + struct.pack(">I", 4_000_000) + b"x" * 1_000)
                )
            await flood.writer.drain()
            await check_health_soon(server)
            await call_of_another_address(server, GET, GetRunRequest(run_id="run").SerializeToString())
        await server.stubs.runs.GetRun(GetRunRequest(run_id="run"))


async def check_health_soon(server: Server) -> None:
    """Wait until the server has begun all calls that were sent before: their turns are taken then."""
    connection = await aio.insecure_channel(server.target, options=CHANNEL_OPTIONS).__aenter__()
    try:
        unknown: Any = connection.unary_unary("/grpc.health.v1.Health/Unknown")
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
