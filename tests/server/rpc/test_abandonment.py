"""Runs whose producers fall silent are ended as ABANDONED by the server."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import StreamEndReason, StreamEventsRequest
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import WaitRunRequest
from support.calls import answer, append, create, get, listed, publish, publishing
from support.clock import ManualClock
from support.events import custom, message_started, run_finished, run_started
from support.server import Server, Stubs, serving
from support.status import refused

ABANDONED, RUNNING = RunState.RUN_STATE_ABANDONED, RunState.RUN_STATE_RUNNING


async def watched(stubs: Stubs, run_id: str, timeout: float, events: Iterable[Event] = ()) -> None:
    """Create a run with a producer_timeout in seconds, and start it."""
    allowed = Duration()
    allowed.FromNanoseconds(round(timeout * 1e9))
    await create(stubs, run_id, producer_timeout=allowed)
    await append(stubs, events or [run_started()], run_id=run_id)


async def ended(stubs: Stubs, run_id: str) -> "RunState.ValueType":
    """Wait for a run's end, by its events: the clock stands still."""
    return (await stubs.runs.WaitRun(WaitRunRequest(run_id=run_id), timeout=20)).run.state


async def test_a_silent_producers_run_is_ended_once(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await watched(stubs, "silent", 5, [run_started(), message_started()])
    clock.advance(6.1)

    assert await ended(stubs, "silent") == ABANDONED
    clock.advance(60)
    await watched(stubs, "later", 1)
    clock.advance(2.1)
    await ended(stubs, "later")  # the server has looked again

    events = await listed(stubs, "silent")
    assert [event.WhichOneof("payload") for event in events] == ["run_started", "message_started", "run_finished"]
    assert events[-1].run_finished.state == ABANDONED
    assert events[-1].run_finished.error.type == "producer_silent"
    assert (await get(stubs, "silent")).result == events[-1].run_finished
    with refused("RUN_SEALED"):
        await append(stubs, [run_finished()], run_id="silent", first=3)


async def test_the_end_is_streamed(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await watched(stubs, "run", 5)
    call = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"), timeout=20)
    frames = []
    async for frame in call:
        frames.append(frame)
        if frame.HasField("caught_up"):
            clock.advance(6.1)

    streamed = [event for frame in frames for event in frame.events.events]
    assert streamed == await listed(stubs)
    assert streamed[-1].run_finished.state == ABANDONED
    assert frames[-1].end.reason == StreamEndReason.STREAM_END_REASON_RUN_FINISHED


async def test_a_run_whose_producer_never_came_is_ended_with_a_beginning(
    timed_server: Server, clock: ManualClock
) -> None:
    await create(timed_server.stubs, producer_timeout=Duration(seconds=5))
    clock.advance(6.1)
    assert await ended(timed_server.stubs, "run") == ABANDONED
    payloads = [event.WhichOneof("payload") for event in await listed(timed_server.stubs)]
    assert payloads == ["run_started", "run_finished"]


async def test_patience_is_each_runs_own(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await create(stubs, "for-ever")
    await watched(stubs, "patient", 60)
    await watched(stubs, "short", 5)
    clock.advance(7)
    assert await ended(stubs, "short") == ABANDONED
    assert (await get(stubs, "patient")).state == RUNNING
    clock.advance(60)
    assert await ended(stubs, "patient") == ABANDONED
    assert (await get(stubs, "for-ever")).state == RunState.RUN_STATE_QUEUED


@pytest.mark.parametrize("over", ["append", "publish"])
async def test_signs_of_life_keep_a_run_going(timed_server: Server, clock: ManualClock, over: str) -> None:
    stubs = timed_server.stubs
    await watched(stubs, "alive", 5)
    for number in range(4):
        await watched(stubs, f"silent-{number}", 3)
        clock.advance(4.2)
        assert await ended(stubs, f"silent-{number}") == ABANDONED
        if over == "append":
            await append(stubs, run_id="alive")
        else:
            async with publishing(stubs) as call:
                await publish(call, run_id="alive")
                await answer(call)
    assert (await get(stubs, "alive")).state == RUNNING
    clock.advance(6.2)
    assert await ended(stubs, "alive") == ABANDONED


async def test_events_are_signs_of_life(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    await watched(stubs, "alive", 5)
    await watched(stubs, "silent", 5)
    await watched(stubs, "early", 2)
    clock.advance(4)
    assert await ended(stubs, "early") == ABANDONED  # no check is under way then, in whose place none would be made
    await append(stubs, [custom()], run_id="alive", first=2)
    clock.advance(2.1)
    assert await ended(stubs, "silent") == ABANDONED
    assert (await get(stubs, "alive")).state == RUNNING


async def test_silence_counts_from_the_servers_start(tmp_path: Path, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock) as server:
        await watched(server.stubs, "run", 5)
    clock.advance(3_600)
    async with serving(tmp_path, clock=clock) as server:
        await watched(server.stubs, "marker", 2)
        clock.advance(3.1)
        assert await ended(server.stubs, "marker") == ABANDONED
        assert (await get(server.stubs)).state == RUNNING
        clock.advance(3)
        assert await ended(server.stubs, "run") == ABANDONED


@pytest.mark.parametrize("seconds", [3_600, -3_600], ids=["forward", "back"])
async def test_silence_counts_from_zero_when_the_wall_clock_is_set(
    timed_server: Server, clock: ManualClock, seconds: float
) -> None:
    await watched(timed_server.stubs, "run", 5)
    clock.jump(seconds)
    await watched(timed_server.stubs, "marker", 2)
    clock.advance(3.5)
    assert await ended(timed_server.stubs, "marker") == ABANDONED
    assert (await get(timed_server.stubs)).state == RUNNING
    clock.advance(3_610 if seconds < 0 else 5)  # a time in the future stands until it has come
    assert await ended(timed_server.stubs, "run") == ABANDONED
