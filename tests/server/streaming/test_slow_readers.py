"""Readers that do not read: their memory is bounded, they delay nobody, and they can resume."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from structlog.testing import capture_logs

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event
from server.rpc import http2
from support.calls import until
from support.events import a_run_of, run_finished, text_delta
from support.server import ServerProcess, Stubs, connected, serving
from support.streams import (
    append,
    asked,
    create,
    delete,
    failure,
    opened,
    publish,
    read_to_end,
    read_until,
    refused,
    stream,
)

STALL = 0.5  # seconds
MIB = 1 << 20
LATE = 20.0
STREAM = "/lavant.v1.EventService/StreamEvents"


def backlog(mebibytes: int) -> list[Event]:
    """Events of 64 KiB each."""
    return [text_delta("x" * (1 << 16)) for _ in range(16 * mebibytes)]


async def fill(stubs: Stubs, mebibytes: int) -> int:
    """Publish an unfinished run, and return its last sequence."""
    await create(stubs)
    events = [*a_run_of(2, finished=False), *backlog(mebibytes)]
    await publish(stubs, events, batch_size=15)
    return len(events)


async def opened_soon(stubs: Stubs, **fields: Any) -> None:
    """Open a stream as soon as its lease is free."""
    async with asyncio.timeout(LATE):
        while True:
            call = stream(stubs, **fields)
            try:
                await call.read()
            except grpc.aio.AioRpcError:
                continue
            call.cancel()
            return


async def test_a_reader_that_stops_reading_is_let_go_and_resumes(tmp_path: Path) -> None:
    async with serving(tmp_path, write_timeout=STALL) as server, connected(server.target) as other:
        last = await fill(server.stubs, 16)
        stalled = stream(other, session_id="one", attempt=1)
        frames = await read_until(stalled, "events")
        live = await opened(server.stubs, consumer_id="live", start=pb.START_POSITION_NOW)
        for sequence in range(last + 1, last + 20):
            await append(server.stubs, [text_delta("live")], first=sequence)
            await read_until(live, "events")
        await append(server.stubs, [run_finished()], first=last + 20)
        await read_to_end(live)
        assert (await refused(server.stubs, session_id="two")).reason == "CONSUMER_BUSY"
        await server.app.calls.ended()
        resumed = await opened(server.stubs, session_id="two")
        resumed.cancel()
        ended = await failure(stalled, frames)
        assert (ended.code, ended.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")
        assert ended.retry_after == 1
        assert "end" not in frames.kinds
        assert 0 < len(frames.events) < last
        await server.app.calls.ended()
        again = stream(server.stubs, session_id="one", attempt=2, resume_token=frames.last.resume_token)
        await read_to_end(again, frames)
        assert frames.sequences == list(range(1, last + 21))


async def test_what_readers_that_do_not_read_cost(tmp_path: Path) -> None:
    """Their backlog is 512 MiB in all; the server keeps none of it."""
    process = ServerProcess(tmp_path, {"LAVANT_LOG_LEVEL": "error"})
    await process.start("--write-timeout", str(STALL))
    try:
        async with AsyncExitStack() as stack:
            stubs = await stack.enter_async_context(connected(process.target))
            await fill(stubs, 64)
            names = [f"reader-{number}" for number in range(8)]
            readers = [await stack.enter_async_context(connected(process.target)) for _ in names]
            server = psutil.Process(process.pid)
            before = server.memory_info().rss
            stalled = [
                await opened(reader, consumer_id=name, session_id=name)
                for reader, name in zip(readers, names, strict=True)
            ]
            most = before
            for name in names:
                await opened_soon(stubs, consumer_id=name, session_id="other")
                most = max(most, server.memory_info().rss)
            assert (most - before) / MIB < 64
            for call in stalled:
                assert (await failure(call)).reason == "SLOW_CONSUMER"
    finally:
        await process.kill()


async def test_a_stalled_reader_of_a_deleted_run_is_in_nobodys_way(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server.target) as other:
        last = await fill(server.stubs, 8)
        await append(server.stubs, [run_finished()], first=last + 1)
        stalled = stream(other, consumer_id="stalled")
        await read_until(stalled, "events")
        await delete(server.stubs)
        await create(server.stubs)
        await append(server.stubs, a_run_of(2, finished=False))
        call = await opened(server.stubs)
        await append(server.stubs, [run_finished()], first=3)
        assert (await read_to_end(call)).sequences == [1, 2, 3]
        ended = await failure(stalled)
        assert (ended.code, ended.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


async def test_a_stalled_reader_counts_until_it_has_gone(tmp_path: Path) -> None:
    async with serving(tmp_path, write_timeout=STALL, max_streams=4) as server, asyncio.timeout(LATE):
        await fill(server.stubs, 2)
        async with http2.connected(server.target, window=5_000) as peer:
            for number in range(4):
                peer.call(STREAM, asked(consumer_id=f"reader-{number}").SerializeToString())
            await until(lambda: len(server.app.calls) == 4)
            await server.app.calls.ended()  # a drain would not wait for them
            assert len(server.app.calls) == 4
            assert (await refused(server.stubs, consumer_id="reader-0")).reason == "QUOTA_EXCEEDED"
        await until(lambda: len(server.app.calls) == 0)
        (await opened(server.stubs, consumer_id="reader-0")).cancel()


@pytest.mark.parametrize("window", [0, 100, 5_000])
async def test_a_reader_that_stalls_at_its_first_frame_gets_a_status(tmp_path: Path, window: int) -> None:
    async with serving(tmp_path, write_timeout=STALL) as server, asyncio.timeout(LATE):
        await fill(server.stubs, 1)
        async with http2.connected(server.target, window=window) as peer:
            with capture_logs() as logs:
                stream_id = peer.call(STREAM, asked().SerializeToString())
                await until(lambda: len(server.app.calls) == 1)
                await server.app.calls.ended()
                (await opened(server.stubs, session_id="another")).cancel()  # the lease is free
                peer.open_window(stream_id, 1 << 24)
                await peer.ended({stream_id})
            assert not [entry for entry in logs if entry["log_level"] == "error"]
        await until(lambda: len(server.app.calls) == 0)
