"""Streams that end by themselves: by the call's deadline, by age, and for want of events."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import EventType
from lavant.v1.run_service_pb2 import GetRunRequest
from support.clock import ManualClock
from support.events import a_run_of, custom, text_delta
from support.server import Server, Stubs, serving
from support.streams import (
    Frames,
    append,
    create,
    kind,
    opened,
    publish,
    read,
    read_to_end,
    read_until,
    stream,
)

DEADLINE, MAX_AGE, IDLE = (
    pb.STREAM_END_REASON_DEADLINE,
    pb.STREAM_END_REASON_MAX_AGE,
    pb.STREAM_END_REASON_IDLE,
)
STEP = 2.0


async def pass_time(stubs: Stubs, clock: ManualClock, seconds: float) -> None:
    """Let time pass in steps, so that leases are renewed on the way."""
    while seconds > 0:
        clock.advance(min(STEP, seconds))
        seconds -= STEP
        await stubs.runs.GetRun(GetRunRequest(run_id="run"))


@pytest.fixture
async def stubs(timed_server: Server) -> Stubs:
    """A connection to a server that has an unfinished run of two events."""
    await create(timed_server.stubs)
    await append(timed_server.stubs, a_run_of(2, finished=False))
    return timed_server.stubs


@pytest.mark.parametrize("timeout", [40, 200.25, 1000.5])
async def test_half_a_second_before_the_deadline(stubs: Stubs, clock: ManualClock, timeout: float) -> None:
    """As the client counts: gRPC sends the time left with three digits only."""
    call = stream(stubs, timeout=timeout)
    frames = await read_until(call, "caught_up")
    await clock.awaited(10)
    most = timeout // 100 * 98 or timeout - 2
    await pass_time(stubs, clock, most)
    await append(stubs, [text_delta()], first=3)
    await read_until(call, "events", frames)
    await pass_time(stubs, clock, timeout - 0.5 - most)
    await read_to_end(call, frames)
    assert frames.last.end == pb.StreamEnd(reason=DEADLINE, reconnect=True, retry_delay=Duration())
    assert frames.sequences == [1, 2, 3]


@pytest.mark.parametrize(("timeout", "least"), [(1.3, 0.7), (0.9, 0.4)])
async def test_in_real_time_the_end_comes_before_the_deadline(server: Server, timeout: float, least: float) -> None:
    """A deadline nearer than a second ends the stream half-way, and no heartbeat has to come before."""
    await create(server.stubs)
    await append(server.stubs, a_run_of(3, finished=False))
    loop = asyncio.get_running_loop()
    began = loop.time()
    frames = await read_to_end(stream(server.stubs, timeout=timeout))
    assert least <= loop.time() - began < timeout
    assert frames.kinds == ["opened", "events", "caught_up", "end"]
    assert frames.last.end.reason == DEADLINE
    assert frames.last.end.reconnect


async def test_no_deadline_costs_an_event(server: Server) -> None:
    events = a_run_of(500)
    await create(server.stubs)
    producer = asyncio.create_task(publish(server.stubs, events, batch_size=1))
    got = Frames()
    position: dict[str, Any] = {}
    ends = []
    for attempt in range(1, 1_000):
        call = stream(server.stubs, timeout=0.02 + attempt % 7 / 50, session_id="one", attempt=attempt, **position)
        with suppress(aio.AioRpcError):  # on a busy machine, a deadline this short may pass before the server looks
            while isinstance(frame := await call.read(), pb.StreamEventsResponse):
                got.all.append(frame)
        if got.all:
            ends.append(got.last.end.reason)
            position = {"resume_token": got.last.resume_token}
            if ends[-1] == pb.STREAM_END_REASON_RUN_FINISHED:
                break
    await producer
    assert DEADLINE in ends
    assert got.sequences == list(range(1, 501))


async def test_at_its_maximal_age(tmp_path: Path, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock, max_stream_age=20) as server:
        await create(server.stubs)
        calls = [stream(server.stubs, consumer_id=f"reader-{number}") for number in range(30)]
        firsts = [await read(call) for call in calls]
        ages = [first.opened.max_age.ToNanoseconds() / 1e9 for first in firsts]
        assert 18 <= min(ages) < 19 < 21 < max(ages) <= 22
        for call in calls:
            await read_until(call, "caught_up")
        await clock.awaited(10)
        await pass_time(server.stubs, clock, 17.9)
        reads = [asyncio.create_task(read_to_end(call)) for call in calls]
        await append(server.stubs, a_run_of(2, finished=False))
        assert not any(task.done() for task in reads)
        await pass_time(server.stubs, clock, 4.25)
        for frames in await asyncio.gather(*reads):
            assert frames.sequences == [1, 2]
            assert (frames.last.end.reason, frames.last.end.reconnect) == (MAX_AGE, True)


async def test_for_want_of_events(stubs: Stubs, clock: ManualClock) -> None:
    idle = timedelta(seconds=4.25)
    call = stream(stubs, idle_timeout=idle, heartbeat_interval=timedelta(seconds=60))
    frames = await read_until(call, "caught_up")
    for sequence in range(3, 7):
        await clock.awaited(4.25)
        await pass_time(stubs, clock, 4.0)
        await append(stubs, [text_delta()], first=sequence)
        await read_until(call, "events", frames)
    await clock.awaited(4.25)
    await pass_time(stubs, clock, 4.25)
    await read_to_end(call, frames)
    assert frames.kinds == ["opened", "events", "caught_up", *["events"] * 4, "end"]
    assert (frames.last.end.reason, frames.last.end.reconnect) == (IDLE, False)


async def test_heartbeats_do_not_put_off_the_end_for_want_of_events(stubs: Stubs, clock: ManualClock) -> None:
    idle, beat = timedelta(seconds=7.25), timedelta(seconds=2.25)
    call = stream(stubs, idle_timeout=idle, heartbeat_interval=beat, types=[EventType.EVENT_TYPE_CUSTOM])
    frames = await read_until(call, "caught_up")
    await append(stubs, [custom()], first=3)
    await read_until(call, "events", frames)
    for _ in range(3):
        await clock.awaited(2.25)
        clock.advance(2.25)
        await read_until(call, "heartbeat", frames)
    await clock.awaited(0.5)
    clock.advance(0.5)
    await read_to_end(call, frames)
    assert frames.kinds == ["opened", "caught_up", "events", *["heartbeat"] * 3, "end"]
    assert frames.last.end.reason == IDLE


async def test_a_stream_that_waits_for_its_run_ends_like_any_other(stubs: Stubs, clock: ManualClock) -> None:
    call = await opened(stubs, run_id="later", wait_for_run=True, idle_timeout=timedelta(seconds=3.25))
    await clock.awaited(3.25)
    clock.advance(3.25)
    frames = await read_to_end(call)
    assert [kind(frame) for frame in frames.all] == ["end"]
    assert (frames.last.end.reason, frames.last.end.reconnect) == (IDLE, False)
