"""Where a stream begins and stops, and runs that are not there yet, or no more."""

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from lavant.server.model import RunKey
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import EventType
from lavant.v1.run_pb2 import Run
from support.clock import ManualClock
from support.engines import KEY
from support.events import a_run_of, batch_of, text_delta
from support.server import Server
from support.streaming import Written, delivered, options, streaming
from support.streams import (
    FRAME_LIMIT,
    Frames,
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

NOW, BEGINNING = pb.START_POSITION_NOW, pb.START_POSITION_BEGINNING
HEAD = pb.STOP_POSITION_HEAD
HEARTBEAT = 1.25  # seconds: nothing else in the server is due so


@pytest.mark.parametrize("start", [None, pb.START_POSITION_UNSPECIFIED, BEGINNING])
async def test_from_the_beginning_of_a_finished_run(server: Server, start: "pb.StartPosition.ValueType | None") -> None:
    await create(server.stubs)
    await publish(server.stubs, a_run_of(6), batch_size=4)
    frames = await streamed(server.stubs, start=start)
    assert frames.kinds == ["opened", "events", "caught_up", "end"]
    assert frames.sequences == list(range(1, 7))
    assert frames.of("opened").opened.run.last_sequence == 6
    assert frames.of("caught_up").caught_up.last_sequence == 6
    assert frames.last.end == pb.StreamEnd(reason=pb.STREAM_END_REASON_RUN_FINISHED)


async def test_from_now_on(server: Server) -> None:
    events = a_run_of(8)
    await create(server.stubs)
    await publish(server.stubs, events[:5])
    call = stream(server.stubs, start=NOW)
    frames = await read_until(call, "caught_up")
    assert frames.kinds == ["opened", "caught_up"]
    await append(server.stubs, events[5:], first=6)
    await read_to_end(call, frames)
    assert frames.sequences == [6, 7, 8]
    rest = await streamed(server.stubs, resume_token=frames.of("opened").resume_token)
    assert rest.sequences == [6, 7, 8]


async def test_from_now_on_in_a_finished_run(server: Server) -> None:
    await create(server.stubs)
    await publish(server.stubs, a_run_of(5))
    frames = await streamed(server.stubs, start=NOW)
    assert frames.kinds == ["opened", "caught_up", "end"]
    assert frames.last.end.reason == pb.STREAM_END_REASON_RUN_FINISHED


async def test_up_to_the_head_and_no_further(server: Server) -> None:
    deltas = [text_delta("x" * 700) for _ in range(6_000)]
    await create(server.stubs)
    await publish(server.stubs, [*a_run_of(2, finished=False), *deltas], batch_size=1_000)
    call = await opened(server.stubs, stop=HEAD)
    await append(server.stubs, [text_delta("late")], first=6_003)
    frames = await read_to_end(call)
    assert frames.sequences == list(range(1, 6_003))
    assert frames.of("caught_up").caught_up.last_sequence == 6_002
    assert frames.last.end == pb.StreamEnd(reason=pb.STREAM_END_REASON_HEAD_REACHED)
    rest = await streamed(server.stubs, resume_token=frames.last.resume_token, stop=HEAD)
    assert rest.sequences == [6_003]


async def test_up_to_the_head_of_what_the_filter_leaves_out(server: Server) -> None:
    await create(server.stubs)
    await publish(server.stubs, a_run_of(5, finished=False))
    frames = await streamed(server.stubs, stop=HEAD, types=[EventType.EVENT_TYPE_ROW_FINISHED])
    assert frames.kinds == ["opened", "caught_up", "end"]
    await append(server.stubs, [text_delta("late")], first=6)
    token = frames.last.resume_token
    assert (await streamed(server.stubs, stop=HEAD, resume_token=token)).sequences == []
    only_text = [EventType.EVENT_TYPE_TEXT_DELTA]
    assert (await streamed(server.stubs, stop=HEAD, resume_token=token, types=only_text)).sequences == [6]


@pytest.mark.parametrize("start", [BEGINNING, NOW])
async def test_an_empty_run(server: Server, start: "pb.StartPosition.ValueType") -> None:
    await create(server.stubs)
    assert (await streamed(server.stubs, start=start, stop=HEAD)).kinds == ["opened", "caught_up", "end"]
    call = stream(server.stubs, start=start)
    frames = await read_until(call, "caught_up")
    assert frames.kinds == ["opened", "caught_up"]
    assert frames.last.caught_up.last_sequence == 0
    await append(server.stubs, a_run_of(5))
    assert (await read_to_end(call, frames)).sequences == [1, 2, 3, 4, 5]


async def test_a_run_that_is_not_there(server: Server) -> None:
    problem = await refused(server.stubs)
    assert (problem.code, problem.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


async def test_wait_for_a_run(timed_server: Server, clock: ManualClock) -> None:
    stubs = timed_server.stubs
    call = stream(stubs, wait_for_run=True, heartbeat_interval=timedelta(seconds=HEARTBEAT))
    frames = await read_until(call, "opened")
    assert not frames.last.opened.HasField("run")
    for _ in range(3):
        await clock.awaited(HEARTBEAT)
        clock.advance(HEARTBEAT)
        frames = await read_until(call, "heartbeat", frames)
    assert frames.kinds == ["opened", "heartbeat", "heartbeat", "heartbeat"]
    assert frames.last.heartbeat.last_sequence == 0
    await create(stubs)
    await read_until(call, "caught_up", frames)
    await publish(stubs, a_run_of(5), batch_size=2)
    await read_to_end(call, frames)
    assert frames.sequences == [1, 2, 3, 4, 5]
    for frame in frames.all:
        before = Frames(frames.all[: frames.all.index(frame) + 1]).sequences
        assert before + (await streamed(stubs, resume_token=frame.resume_token)).sequences == [1, 2, 3, 4, 5]


async def test_go_on_waiting_with_the_token_of_a_wait(server: Server) -> None:
    token = (await read(stream(server.stubs, wait_for_run=True, session_id="one", attempt=1))).resume_token
    call = await opened(server.stubs, resume_token=token, wait_for_run=True, session_id="one", attempt=2)
    await create(server.stubs)
    await append(server.stubs, a_run_of(5))
    assert (await read_to_end(call)).sequences == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("start", [BEGINNING, NOW])
async def test_who_waited_for_a_run_misses_none_of_it(server: Server, start: "pb.StartPosition.ValueType") -> None:
    """However many events are there when the stream finds the run."""
    names = [f"run-{number}" for number in range(30)]
    calls = [await opened(server.stubs, run_id=name, wait_for_run=True, start=start) for name in names]
    for name in names:
        events = a_run_of(5)
        both = (create(server.stubs, name), append(server.stubs, events, run_id=name))
        await asyncio.gather(*both, return_exceptions=True)
        await append(server.stubs, events, run_id=name)  # for when it overtook the creation
    for call in calls:
        assert (await read_to_end(call)).sequences == [1, 2, 3, 4, 5]


class LateEngine(SQLiteEngine):
    """Creates a run just after it was looked for in vain for the second time."""

    failed = 0

    async def find_run(self, key: RunKey) -> Run | None:
        if (run := await super().find_run(key)) is None:
            self.failed += 1
            if self.failed == 2:
                await self.create_run(key, Run(name="weather"))
                await self.append(key, batch_of(a_run_of(5)))
        return run


async def test_a_run_created_while_it_is_looked_for(tmp_path: Path, clock: ManualClock) -> None:
    engine = await LateEngine.open(tmp_path / "lavant.db", clock)
    shared, written = streaming(engine, clock), Written()
    async with asyncio.timeout(FRAME_LIMIT):
        await delivered(shared, options(KEY, wait_for_run=True), written)
    assert written.frames.sequences == [1, 2, 3, 4, 5]
    await shared.leases.close()
    await engine.close()


async def test_a_run_deleted_while_it_is_streamed(server: Server) -> None:
    deltas = [text_delta("x" * 10_000) for _ in range(400)]
    events = [*a_run_of(2, finished=False), *deltas, a_run_of(4)[-1]]
    await create(server.stubs)
    await publish(server.stubs, events, batch_size=100)
    replay = stream(server.stubs, consumer_id="replay")
    await read_until(replay, "events")
    await delete(server.stubs)
    problem = await failure(replay)
    assert (problem.code, problem.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


async def test_the_tokens_of_a_run_that_was_deleted_and_created_again(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, a_run_of(6))
    old = await streamed(server.stubs)
    await delete(server.stubs)
    for frame in old.all:
        for wait in (False, True):
            problem = await refused(server.stubs, resume_token=frame.resume_token, wait_for_run=wait)
            assert problem.reason == "RUN_NOT_FOUND", kind(frame)
    await create(server.stubs)
    await append(server.stubs, a_run_of(8))
    for frame in old.all:
        problem = await refused(server.stubs, resume_token=frame.resume_token)
        assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID"), kind(frame)
    assert len((await streamed(server.stubs)).sequences) == 8
