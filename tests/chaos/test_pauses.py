"""A replica that stands still past the end of its leases, and NATS that does not answer."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import aio

from lavant.server.store.jetstream import Location
from lavant.v1 import event_service_pb2 as pb
from support.calls import append, create, until
from support.clock import ManualClock
from support.events import a_run_of, custom, run_finished, text_delta
from support.nats import fresh_location, nats_server
from support.process import stop
from support.server import ServerProcess, Stubs, connected, serving
from support.streams import Frames, kind, opened, read_to_end, read_until, stream

if TYPE_CHECKING:
    from support.streams import StreamCall

LIMIT = 60.0
PAUSE = 0.2
LARGE = f'"{"x" * 500_000}"'


@pytest.fixture
async def replicas(location: Location, tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    processes = [ServerProcess(tmp_path, store=str(location)) for _ in range(2)]
    try:
        for process in processes:
            await process.start()
        yield processes
    finally:
        for process in processes:
            await process.kill()


async def got(stubs: Stubs, **fields: Any) -> "tuple[StreamCall, Frames]":
    """Try to acquire the consumer's lease until it is free."""
    async with asyncio.timeout(LIMIT):
        while True:
            call = stream(stubs, **fields)
            try:
                first = await call.read()
            except aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.UNAVAILABLE):
                    raise
                await asyncio.sleep(PAUSE)
            else:
                assert isinstance(first, pb.StreamEventsResponse)
                return call, Frames([first])


async def left(call: "StreamCall") -> tuple[list[str], grpc.StatusCode]:
    """Read on to a call's status: the kinds of the frames until then, and its code."""
    kinds = []
    async with asyncio.timeout(LIMIT):
        try:
            while isinstance(frame := await call.read(), pb.StreamEventsResponse):
                kinds.append(kind(frame))
        except aio.AioRpcError as error:
            return kinds, error.code()
    return kinds, await call.code()


@pytest.mark.timeout(180)
async def test_a_replica_that_stood_still_sends_nothing_more(replicas: list[ServerProcess]) -> None:
    still, well = replicas
    async with connected(still.target) as one, connected(well.target) as other:
        await create(other)
        await append(other, a_run_of(20, finished=False))
        before = await opened(one, session_id="before")
        await read_until(before, "caught_up")
        stop(still.pid)
        after, frames = await got(other, session_id="after")
        await append(other, [text_delta()], first=21)
        await read_until(after, lambda frames: len(frames.events) == 21, frames)
        os.kill(still.pid, signal.SIGCONT)
        kinds, code = await left(before)
        assert ("events" in kinds, code) == (False, grpc.StatusCode.UNAVAILABLE)
        await append(other, [text_delta(), run_finished()], first=22)
        assert (await read_to_end(after, frames)).sequences == list(range(1, 24))


async def test_a_stream_ends_when_its_hold_cannot_be_renewed_and_resumes(tmp_path: Path, clock: ManualClock) -> None:
    with nats_server(tmp_path) as nats:
        async with serving(tmp_path, clock=clock, store=str(fresh_location([nats]))) as server:
            await create(server.stubs)
            await append(server.stubs, a_run_of(20, finished=False))
            call = await opened(server.stubs, session_id="s", attempt=1)
            frames = await read_until(call, "caught_up")
            nats.pause()
            clock.advance(5)
            clock.advance(5)
            kinds, code = await left(call)
            assert ("events" in kinds, code) == (False, grpc.StatusCode.UNAVAILABLE)
            nats.go_on()
            token = frames.last.resume_token
            again, rest = await got(server.stubs, session_id="s", attempt=2, resume_token=token)
            await append(server.stubs, [run_finished()], first=21)
            assert (await read_to_end(again, rest)).sequences == [21]


async def test_a_write_that_stalls_ends_with_the_hold(tmp_path: Path, clock: ManualClock) -> None:
    with nats_server(tmp_path) as nats:
        async with serving(tmp_path, clock=clock, store=str(fresh_location([nats])), write_timeout=1_000) as server:
            await create(server.stubs)
            await append(server.stubs, a_run_of(4, finished=False))
            call = await opened(server.stubs)
            await read_until(call, "caught_up")  # and reads no more
            for number in range(5, 45):
                await append(server.stubs, [custom(value_json=LARGE)], first=number)
            nats.pause()
            clock.advance(5)
            clock.advance(5)
            await until(lambda: b"\nlavant_leases_held 0.0\n" in server.app.metrics.exposition()[0])
            nats.go_on()
            kinds, code = await left(call)  # the write continues, nothing follows it
            assert (len(kinds) < 40, code) == (True, grpc.StatusCode.UNAVAILABLE)
