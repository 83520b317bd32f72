"""Parts that are ready at the same time come in one frame: a short run whole, a live one up to its head."""

import asyncio

import pytest

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import EventType
from support.events import a_run_of, run_finished, text_delta
from support.server import Server, Stubs
from support.streams import (
    FRAME_LIMIT,
    PARTS,
    StreamCall,
    append,
    create,
    delete,
    failure,
    opened,
    publish,
    read_until,
    refused,
    stream,
    streamed,
)

WHOLE = ["opened", "events", "caught_up", "end"]


def parts_of(frame: pb.StreamEventsResponse) -> list[str]:
    return [name for name in PARTS if frame.HasField(name)]  # type: ignore[arg-type]


async def frames_of(call: StreamCall) -> list[pb.StreamEventsResponse]:
    """Read a stream to its end, frame by frame."""
    frames = []
    async with asyncio.timeout(FRAME_LIMIT):
        while isinstance(frame := await call.frames.read(), pb.StreamEventsResponse):
            frames.append(frame)
    return frames


async def first_frame(call: StreamCall) -> pb.StreamEventsResponse:
    async with asyncio.timeout(FRAME_LIMIT):
        frame = await call.frames.read()
    assert isinstance(frame, pb.StreamEventsResponse)
    return frame


@pytest.fixture
async def stubs(server: Server) -> Stubs:
    """A connection to a server that has an ended run of five events."""
    await create(server.stubs)
    await append(server.stubs, a_run_of(5))
    return server.stubs


async def test_an_ended_run_comes_in_one_frame(stubs: Stubs) -> None:
    (frame,) = await frames_of(stream(stubs))
    assert parts_of(frame) == WHOLE
    assert [event.sequence for event in frame.events.events] == [1, 2, 3, 4, 5]
    assert (frame.opened.run.last_sequence, frame.caught_up.last_sequence) == (5, 5)
    assert frame.end == pb.StreamEnd(reason=pb.STREAM_END_REASON_RUN_FINISHED)
    (again,) = await frames_of(stream(stubs, resume_token=frame.opened.start_token))
    assert again.events == frame.events
    (rest,) = await frames_of(stream(stubs, resume_token=frame.resume_token))
    assert parts_of(rest) == ["opened", "caught_up", "end"]
    assert frame.opened.fence < again.opened.fence < rest.opened.fence


async def test_the_recorded_events_of_a_live_run_come_in_one_frame(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, a_run_of(4, finished=False))
    live = stream(server.stubs)
    assert parts_of(await first_frame(live)) == ["opened", "events", "caught_up"]
    (to_head,) = await frames_of(stream(server.stubs, consumer_id="head", stop=pb.STOP_POSITION_HEAD))
    assert parts_of(to_head) == WHOLE
    assert to_head.end.reason == pb.STREAM_END_REASON_HEAD_REACHED
    from_now = stream(server.stubs, consumer_id="now", start=pb.START_POSITION_NOW)
    assert parts_of(await first_frame(from_now)) == ["opened", "caught_up"]
    await append(server.stubs, [run_finished()], first=5)
    for call in (live, from_now):
        assert [parts_of(frame) for frame in await frames_of(call)] == [["events"], ["end"]]


async def test_a_run_that_is_longer_than_a_frame_comes_in_several(server: Server) -> None:
    await create(server.stubs)
    await publish(server.stubs, [*a_run_of(2, finished=False), *[text_delta("x" * 9_000)] * 50, run_finished()])
    frames = await frames_of(stream(server.stubs))
    assert [parts_of(frame) for frame in frames] == [["opened", "events"], ["events", "caught_up"], ["end"]]


async def test_a_run_of_which_a_filter_leaves_nothing_comes_in_one_frame(stubs: Stubs) -> None:
    (frame,) = await frames_of(stream(stubs, types=[EventType.EVENT_TYPE_CUSTOM]))
    assert parts_of(frame) == ["opened", "caught_up", "end"]
    assert (await streamed(stubs, resume_token=frame.resume_token)).events == []


async def test_a_whole_run_is_refused_while_another_stream_holds_the_lease(server: Server) -> None:
    stubs = server.stubs
    await create(stubs)
    await append(stubs, a_run_of(4, finished=False))
    head = {"stop": pb.STOP_POSITION_HEAD}
    held = await opened(stubs, session_id="one", attempt=2)
    assert (await refused(stubs, session_id="two", **head)).reason == "CONSUMER_BUSY"
    assert (await refused(stubs, session_id="one", attempt=2, **head)).reason == "STALE_ATTEMPT"
    (frame,) = await frames_of(stream(stubs, session_id="one", attempt=3, **head))
    assert parts_of(frame) == WHOLE
    assert (await failure(held)).reason == "STREAM_DISPLACED"
    held = await opened(stubs, session_id="two")
    await read_until(held, "caught_up")
    assert parts_of((await frames_of(stream(stubs, session_id="three", take_over=True, **head)))[0]) == WHOLE
    assert (await failure(held)).reason == "STREAM_DISPLACED"


async def test_a_whole_run_that_was_deleted_is_not_found(stubs: Stubs) -> None:
    await delete(stubs)
    assert (await refused(stubs)).reason == "RUN_NOT_FOUND"
