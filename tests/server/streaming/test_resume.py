"""A stream opened with a token begins with the very next event, wherever it was cut."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event, EventType
from support.conversation import conversation, texts, type_of, without_deltas
from support.events import a_run_of, message_started, run_finished, run_started, text_delta
from support.server import Server, Stubs
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
    recorded,
    stream,
    streamed,
)

ALL, MERGED, NONE = pb.DELTA_MODE_ALL, pb.DELTA_MODE_MERGED, pb.DELTA_MODE_NONE
FILTERS: list[list["EventType.ValueType"]] = [
    [],
    [EventType.EVENT_TYPE_TEXT_DELTA],
    [EventType.EVENT_TYPE_TOOL_CALL_STARTED, EventType.EVENT_TYPE_TOOL_OUTPUT_DELTA],
    [EventType.EVENT_TYPE_RUN_STARTED, EventType.EVENT_TYPE_RUN_FINISHED],
    [EventType.EVENT_TYPE_STATE_SNAPSHOT],
]


async def tokens_by_sequence(stubs: Stubs) -> dict[int, str]:
    """A token behind each event of the run but the last."""
    tokens: dict[int, str] = {}
    token = ""
    while True:
        page = await stubs.events.ListEvents(pb.ListEventsRequest(run_id="run", page_size=1, page_token=token))
        if not page.next_page_token:
            return tokens
        token = page.next_page_token
        tokens[page.events[-1].sequence] = token


def shown(log: Iterable[Event], types: Sequence[int], after: int = 0) -> list[Event]:
    return [event for event in log if event.sequence > after and (not types or type_of(event) in types)]


def check(got: Frames, wanted: list[Event], mode: "pb.DeltaMode.ValueType") -> None:
    if mode == ALL:
        assert got.events == wanted
    elif mode == NONE:
        assert got.events == without_deltas(wanted)
    else:
        assert texts(got.events) == texts(wanted)
        assert without_deltas(got.events) == without_deltas(wanted)
        assert got.sequences == sorted(set(got.sequences))
        assert got.sequences[-1:] == [event.sequence for event in wanted[-1:]]


@pytest.mark.parametrize("mode", [ALL, MERGED, NONE])
@pytest.mark.parametrize("batch_size", [1, 4, 1_000])
async def test_resume_behind_every_event(server: Server, batch_size: int, mode: "pb.DeltaMode.ValueType") -> None:
    stubs = server.stubs
    await create(stubs)
    await publish(stubs, conversation(), batch_size=batch_size)
    log = await recorded(stubs)
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    tokens = await tokens_by_sequence(stubs)
    assert list(tokens) == list(range(1, len(log)))
    for types in FILTERS:
        check(await streamed(stubs, types=types, deltas=mode), shown(log, types), mode)
        for sequence, token in tokens.items():
            rest = await streamed(stubs, resume_token=token, types=types, deltas=mode)
            check(rest, shown(log, types, after=sequence), mode)
            assert rest.last.end.reason == pb.STREAM_END_REASON_RUN_FINISHED


@pytest.mark.parametrize("mode", [ALL, MERGED, NONE])
@pytest.mark.parametrize("types", FILTERS)
async def test_every_frame_of_a_long_replay_can_be_resumed_from(
    server: Server, types: list["EventType.ValueType"], mode: "pb.DeltaMode.ValueType"
) -> None:
    deltas = [text_delta(f"{index} " + "x" * 600) for index in range(1_600)]
    events = [run_started(), message_started(), *deltas, run_finished()]
    await create(server.stubs)
    await publish(server.stubs, events, batch_size=130)
    log = await recorded(server.stubs)
    whole = await streamed(server.stubs, types=types, deltas=mode)
    check(whole, shown(log, types), mode)
    for count, frame in enumerate(whole.all, start=1):
        rest = await streamed(server.stubs, resume_token=frame.resume_token, deltas=mode)
        check(Frames([*whole.all[:count], *rest.all]), shown(log, types), mode)


async def test_every_kind_of_frame_can_be_resumed_from(server: Server) -> None:
    events = a_run_of(9)
    await create(server.stubs)
    await publish(server.stubs, events[:5])
    call = stream(server.stubs, heartbeat_interval={"seconds": 1})
    frames = await read_until(call, "heartbeat")
    await append(server.stubs, events[5:6], first=6)
    await append(server.stubs, events[6:], first=7)
    await read_to_end(call, frames)
    assert {"opened", "events", "heartbeat", "caught_up", "end"} == set(frames.kinds)
    for count, frame in enumerate(frames.all, start=1):
        before = Frames(frames.all[:count]).sequences
        rest = await streamed(server.stubs, resume_token=frame.resume_token)
        assert before + rest.sequences == list(range(1, 10)), kind(frame)


async def test_a_token_keeps_its_filter_unless_another_is_asked_for(server: Server) -> None:
    await create(server.stubs)
    await publish(server.stubs, conversation())
    log = await recorded(server.stubs)
    only_text = [EventType.EVENT_TYPE_TEXT_DELTA]
    token = (await streamed(server.stubs, types=only_text)).all[0].resume_token
    kept = await streamed(server.stubs, resume_token=token)
    assert kept.events == shown(log, only_text)
    again = await streamed(server.stubs, resume_token=kept.all[0].resume_token)
    assert again.events == shown(log, only_text)
    only_tools = [EventType.EVENT_TYPE_TOOL_CALL_STARTED]
    other = await streamed(server.stubs, resume_token=token, types=only_tools)
    assert other.events == shown(log, only_tools)
    kept_other = await streamed(server.stubs, resume_token=other.all[0].resume_token)
    assert kept_other.events == shown(log, only_tools)


@pytest.mark.parametrize("mode", [ALL, MERGED])
async def test_resume_again_and_again_while_the_producer_writes(server: Server, mode: "pb.DeltaMode.ValueType") -> None:
    events = a_run_of(600)
    await create(server.stubs)
    producer = asyncio.create_task(publish(server.stubs, events, batch_size=3))
    got = Frames()
    position: dict[str, Any] = {}
    while not got.all or got.last.end.reason != pb.STREAM_END_REASON_RUN_FINISHED:
        attempt = len(got.all) + 1
        call = await opened(server.stubs, session_id="one", attempt=attempt, deltas=mode, **position)
        for _ in range(1 + attempt % 4):
            got.all.append(await read(call))
            if kind(got.last) == "end":
                break
        call.cancel()
        position = {"resume_token": got.last.resume_token}
    await producer
    check(got, await recorded(server.stubs), mode)


async def test_a_token_of_the_very_end_brings_the_end_again(server: Server) -> None:
    await create(server.stubs)
    await publish(server.stubs, a_run_of(5))
    whole = await streamed(server.stubs)
    rest = await streamed(server.stubs, resume_token=whole.last.resume_token)
    assert rest.kinds == ["opened", "caught_up", "end"]
    assert rest.last.end.reason == pb.STREAM_END_REASON_RUN_FINISHED
    assert not rest.last.end.reconnect
