"""One stream per consumer, over gRPC: who gets the place, who is refused, and when it is free again."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from lavant.v1 import event_service_pb2 as pb
from support.clock import ManualClock
from support.events import a_run_of, run_finished, text_delta
from support.server import Server, Stubs, connected, serving
from support.streams import (
    append,
    create,
    delete,
    failure,
    kind,
    opened,
    publish,
    read,
    read_to_end,
    read_until,
    refused,
    stream,
    streamed,
)

PROMPT = 10.0  # seconds: well below the time that a write may stall


@pytest.fixture
def server(timed_server: Server) -> Server:
    """A server whose time stands still: what happens there happens at once."""
    return timed_server


@pytest.fixture
async def stubs(server: Server) -> Stubs:
    """A connection to a server that has an unfinished run."""
    await create(server.stubs)
    await append(server.stubs, a_run_of(3, finished=False))
    return server.stubs


async def finish(stubs: Stubs) -> None:
    """End the run."""
    await append(stubs, [run_finished()], first=4)


async def fence_of(stubs: Stubs, **fields: Any) -> int:
    """Open a stream, and return its fence."""
    return (await read(stream(stubs, **fields))).opened.fence


async def test_a_higher_attempt_takes_over_at_once(stubs: Stubs) -> None:
    old = await opened(stubs, session_id="one", attempt=1)
    new = await opened(stubs, session_id="one", attempt=2)
    ended = await failure(old)
    assert (ended.code, ended.reason) == (grpc.StatusCode.ABORTED, "STREAM_DISPLACED")
    await finish(stubs)
    assert (await read_to_end(new)).sequences == [1, 2, 3, 4]


async def test_a_chain_of_attempts_leaves_the_last_one(stubs: Stubs) -> None:
    calls = [await opened(stubs, session_id="one", attempt=attempt) for attempt in (0, 3, 4, 1_000)]
    for call in calls[:-1]:
        assert (await failure(call)).reason == "STREAM_DISPLACED"
    await finish(stubs)
    await read_to_end(calls[-1])


@pytest.mark.parametrize("attempt", [5, 4, 0])
@pytest.mark.parametrize("take_over", [False, True])
async def test_a_late_duplicate_is_refused(stubs: Stubs, attempt: int, take_over: bool) -> None:
    held = await opened(stubs, session_id="one", attempt=5)
    late = await refused(stubs, session_id="one", attempt=attempt, take_over=take_over)
    assert (late.code, late.reason) == (grpc.StatusCode.ABORTED, "STALE_ATTEMPT")
    await finish(stubs)
    assert (await read_to_end(held)).sequences == [1, 2, 3, 4]


@pytest.mark.parametrize("session_id", ["two", ""])
async def test_a_rival_gets_the_time_until_the_lease_expires(stubs: Stubs, session_id: str) -> None:
    held = await opened(stubs, session_id="one", attempt=1)
    rival = await refused(stubs, session_id=session_id, attempt=9)
    assert (rival.code, rival.reason) == (grpc.StatusCode.UNAVAILABLE, "CONSUMER_BUSY")
    assert rival.retry_after is not None
    assert 0 < rival.retry_after <= 15
    await finish(stubs)
    assert (await read_to_end(held)).sequences == [1, 2, 3, 4]


async def test_a_lease_is_renewed_as_long_as_its_stream_is_open(timed_server: Server, clock: ManualClock) -> None:
    await create(timed_server.stubs)
    held = await opened(timed_server.stubs, session_id="one", heartbeat_interval=timedelta(seconds=4.75))
    for _ in range(10):
        await clock.awaited(4.75)
        clock.advance(4.75)
        await read_until(held, "heartbeat")
    rival = await refused(timed_server.stubs, session_id="two")
    assert rival.reason == "CONSUMER_BUSY"
    assert rival.retry_after is not None
    assert 10 <= rival.retry_after <= 15
    await append(timed_server.stubs, a_run_of(5))
    assert (await read_to_end(held)).sequences == [1, 2, 3, 4, 5]


async def test_two_calls_without_a_session_are_rivals(stubs: Stubs) -> None:
    await opened(stubs)
    assert (await refused(stubs, attempt=1)).reason == "CONSUMER_BUSY"


async def test_a_rival_may_take_over(stubs: Stubs) -> None:
    old = await opened(stubs, session_id="one", attempt=7)
    new = await opened(stubs, session_id="two", take_over=True)
    ended = await failure(old)
    assert (ended.code, ended.reason) == (grpc.StatusCode.ABORTED, "STREAM_DISPLACED")
    assert (await refused(stubs, session_id="one", attempt=8)).reason == "CONSUMER_BUSY"
    await finish(stubs)
    await read_to_end(new)


async def test_a_displaced_session_cannot_take_over_again(stubs: Stubs) -> None:
    await opened(stubs, session_id="one", attempt=1, take_over=True)
    await opened(stubs, session_id="two", take_over=True)
    new = await opened(stubs, session_id="three", take_over=True)
    for session in ("one", "two"):
        assert (await refused(stubs, session_id=session, attempt=9, take_over=True)).reason == "CONSUMER_BUSY"
    await finish(stubs)
    await read_to_end(new)
    await opened(stubs, session_id="one", attempt=10, take_over=True)


@pytest.mark.parametrize("name", ["alice@example.org", "team/ui:1+2", "Jos\u00e9 \u4e2d", "..", "x" * 128])
async def test_a_consumer_may_have_any_name_without_control_characters(stubs: Stubs, name: str) -> None:
    held = await opened(stubs, consumer_id=name, session_id=name, attempt=1)
    assert (await refused(stubs, consumer_id=name, session_id="two")).reason == "CONSUMER_BUSY"
    new = await opened(stubs, consumer_id=name, session_id=name, attempt=2)
    assert (await failure(held)).reason == "STREAM_DISPLACED"
    await finish(stubs)
    assert (await read_to_end(new)).sequences == [1, 2, 3, 4]


async def test_consumers_and_runs_do_not_disturb_each_other(stubs: Stubs) -> None:
    await create(stubs, "other")
    calls = [
        await opened(stubs, session_id="one", attempt=1),
        await opened(stubs, session_id="two", attempt=1, consumer_id="b"),
        await opened(stubs, session_id="one", attempt=1, consumer_id="c"),
        await opened(stubs, session_id="three", attempt=1, run_id="other"),
    ]
    await finish(stubs)
    await append(stubs, a_run_of(4), run_id="other")
    for call in calls:
        assert (await read_to_end(call)).sequences == [1, 2, 3, 4]


async def test_the_lease_is_free_when_the_end_is_read(stubs: Stubs) -> None:
    for number in range(50):
        call = stream(stubs, session_id=f"{number}", stop=pb.STOP_POSITION_HEAD)
        await read_until(call, "end")


async def test_the_lease_is_free_when_an_error_is_read(stubs: Stubs) -> None:
    deltas = [text_delta("x" * 10_000) for _ in range(400)]
    for number in range(5):
        await create(stubs, "doomed")
        await append(stubs, a_run_of(2, finished=False), run_id="doomed")
        await publish(stubs, deltas, first=3, run_id="doomed", batch_size=90)
        await append(stubs, [run_finished()], first=403, run_id="doomed")
        call = await opened(stubs, run_id="doomed", session_id=f"{number}")
        await delete(stubs, "doomed")
        assert (await failure(call)).reason == "RUN_NOT_FOUND"


async def test_a_displaced_stream_does_not_release_the_newer_lease(stubs: Stubs) -> None:
    old = await opened(stubs, session_id="one", attempt=1)
    new = await opened(stubs, session_id="two", take_over=True)
    await failure(old)
    assert (await refused(stubs, session_id="three")).reason == "CONSUMER_BUSY"
    new.cancel()


@pytest.mark.parametrize("frame", ["opened", "caught_up"])
async def test_the_lease_is_free_when_the_client_has_cancelled(server: Server, stubs: Stubs, frame: str) -> None:
    for number in range(20):
        call = stream(stubs, session_id=f"{number}")
        await read_until(call, frame)
        call.cancel()
        await server.app.calls.ended()


async def test_the_lease_is_free_when_the_connection_is_closed(server: Server, stubs: Stubs) -> None:
    async with connected(server.target) as gone:
        await opened(gone, session_id="one")
    await server.app.calls.ended()
    await opened(stubs, session_id="two")


async def test_the_lease_is_free_when_a_stalled_reader_has_cancelled(server: Server, stubs: Stubs) -> None:
    await publish(stubs, [text_delta("x" * 10_000) for _ in range(1_000)], first=4, batch_size=90)
    call = await opened(stubs, session_id="one")
    call.cancel()
    await server.app.calls.ended()
    await opened(stubs, session_id="two")


async def test_displaced_while_its_write_is_stalled(server: Server, stubs: Stubs) -> None:
    """A reader that does not read cannot delay the one that displaces it."""
    await publish(stubs, [text_delta("x" * 10_000) for _ in range(2_000)], first=4, batch_size=90)
    for attempt in range(1, 4):
        old = await opened(stubs, session_id="one", attempt=attempt)
        new = await opened(stubs, session_id="one", attempt=attempt + 10, stop=pb.STOP_POSITION_HEAD)
        assert len((await read_to_end(new)).events) == 2_003
        async with asyncio.timeout(PROMPT):
            await server.app.calls.ended()
        ended = await failure(old)
        assert (ended.code, ended.reason) == (grpc.StatusCode.ABORTED, "STREAM_DISPLACED")


async def test_fences_grow(stubs: Stubs) -> None:
    fences = [await fence_of(stubs, session_id="one", attempt=attempt) for attempt in range(1, 4)]
    fences += [await fence_of(stubs, session_id=session, take_over=True) for session in ("two", "three")]
    assert fences == sorted(set(fences))


async def test_fences_grow_over_restarts(tmp_path: Path) -> None:
    fences = []
    for _ in range(4):
        async with serving(tmp_path) as server:
            await create(server.stubs)
            fences += [await fence_of(server.stubs, session_id="one", attempt=attempt) for attempt in (1, 2)]
    assert fences == sorted(set(fences))


async def test_a_stream_that_waits_for_its_run_holds_its_lease(stubs: Stubs) -> None:
    held = await opened(stubs, run_id="later", session_id="one", wait_for_run=True)
    assert (await refused(stubs, run_id="later", session_id="two", wait_for_run=True)).reason == "CONSUMER_BUSY"
    await create(stubs, "later")
    await append(stubs, a_run_of(4), run_id="later")
    assert (await read_to_end(held)).sequences == [1, 2, 3, 4]


async def test_an_attempt_must_not_be_negative(stubs: Stubs) -> None:
    assert (await refused(stubs, session_id="one", attempt=-1)).reason == "INVALID_FIELD"
    assert kind((await streamed(stubs, stop=pb.STOP_POSITION_HEAD)).all[0]) == "opened"
