"""Readers that do not read: what they cost, who they hold up (nobody), and how they go on."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event
from support.events import a_run_of, run_finished, text_delta
from support.server import ServerProcess, Stubs, connected, serving
from support.streams import (
    append,
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


def backlog(mebibytes: int) -> list[Event]:
    """Events of 64 KiB each."""
    return [text_delta("x" * (1 << 16)) for _ in range(16 * mebibytes)]


async def fill(stubs: Stubs, mebibytes: int) -> int:
    """Publish an unfinished run, and tell its last sequence."""
    await create(stubs)
    events = [*a_run_of(2, finished=False), *backlog(mebibytes)]
    await publish(stubs, events, batch_size=15)
    return len(events)


async def opened_soon(stubs: Stubs, **fields: Any) -> None:
    """Open a stream as soon as its place is free."""
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
