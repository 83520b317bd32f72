"""What a stream does when its calls end in other ways than they should."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc.status_pb2 import Status

from lavant.client import (
    ConsumerBusy,
    IdleTimeout,
    LavantError,
    QuotaExceeded,
    ResumeTokenInvalid,
    StaleAttempt,
    StreamDisplaced,
)
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_service_pb2 import StreamEndReason
from support.scripted import Context, Script, StreamAct, abort, end, events, opened, played, status

Frames = AsyncIterator[pb.StreamEventsResponse]


def aborts(refusal: Status) -> StreamAct:
    """Yield two events, then fail."""

    async def act(request: pb.StreamEventsRequest, context: Context) -> Frames:
        yield opened()
        yield events(1, 2)
        await abort(context, refusal)

    return act


async def ends_without_a_word(request: pb.StreamEventsRequest, context: Context) -> Frames:
    yield opened()
    yield events(1, 2)


async def falls_silent(request: pb.StreamEventsRequest, context: Context) -> Frames:
    yield opened(heartbeat_ms=50)
    yield events(1, 2)
    await asyncio.Event().wait()


async def reaches_its_age(request: pb.StreamEventsRequest, context: Context) -> Frames:
    yield opened()
    yield events(1, 2)
    yield end(StreamEndReason.STREAM_END_REASON_MAX_AGE, reconnect=True)


async def is_idle(request: pb.StreamEventsRequest, context: Context) -> Frames:
    yield opened()
    yield events(1, 2)
    yield end(StreamEndReason.STREAM_END_REASON_IDLE, reconnect=True)


async def drains(request: pb.StreamEventsRequest, context: Context) -> Frames:
    yield opened()
    yield events(1, 2)
    last = end(StreamEndReason.STREAM_END_REASON_DRAINING, reconnect=True)
    last.end.retry_delay.FromMilliseconds(20)
    yield last


async def finishes(request: pb.StreamEventsRequest, context: Context) -> Frames:
    yield opened()
    yield events(3, 4, last=True)
    yield end(StreamEndReason.STREAM_END_REASON_RUN_FINISHED)


async def repeats_itself(request: pb.StreamEventsRequest, context: Context) -> Frames:
    yield opened()
    yield events(1, 2)
    yield events(2, 3, 4, last=True)
    yield end(StreamEndReason.STREAM_END_REASON_RUN_FINISHED)


CUTS = {
    "unavailable": aborts(status(grpc.StatusCode.UNAVAILABLE)),
    "unavailable, said so": aborts(status(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")),
    "reset": aborts(status(grpc.StatusCode.INTERNAL, message="Received RST_STREAM with error code 2")),
    "cancelled": aborts(status(grpc.StatusCode.CANCELLED)),
    "deadline": aborts(status(grpc.StatusCode.DEADLINE_EXCEEDED)),
    "slow": aborts(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")),
    "no end": ends_without_a_word,
    "silence": falls_silent,
    "age": reaches_its_age,
    "idle": is_idle,
    "draining": drains,
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_a_cut_is_resumed_at_the_next_event(cut: StreamAct) -> None:
    script = Script([cut, finishes])
    async with played(script) as client:
        stream = client.runs.stream("r", consumer="ui", take_over=True)
        assert [event.sequence async for event in stream] == [1, 2, 3, 4]
    first, second = script.requests
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.session_id == second.session_id
    assert (first.WhichOneof("start_from"), second.resume_token) == ("start", "te" if cut in ENDING else "t2")
    assert (first.take_over, second.take_over) == (True, False)


ENDING = (reaches_its_age, is_idle, drains)


@pytest.mark.parametrize(
    ("reason", "code", "kind"),
    [
        ("STREAM_DISPLACED", grpc.StatusCode.ABORTED, StreamDisplaced),
        ("STALE_ATTEMPT", grpc.StatusCode.ABORTED, StaleAttempt),
        ("CONSUMER_BUSY", grpc.StatusCode.ALREADY_EXISTS, ConsumerBusy),
        ("QUOTA_EXCEEDED", grpc.StatusCode.RESOURCE_EXHAUSTED, QuotaExceeded),
    ],
)
async def test_a_refusal_is_final(reason: str, code: grpc.StatusCode, kind: type[LavantError]) -> None:
    script = Script([aborts(status(code, reason))])
    async with played(script) as client:
        stream = client.runs.stream("r")
        with pytest.raises(kind):
            await stream.result()
    assert len(script.requests) == 1


async def test_an_event_is_never_given_twice() -> None:
    async with played(Script([repeats_itself])) as client:
        assert [event.sequence async for event in client.runs.stream("r")] == [1, 2, 3, 4]


async def test_the_token_moves_with_every_event() -> None:
    async with played(Script([repeats_itself])) as client:
        stream = client.runs.stream("r")
        tokens = [stream.resume_token async for _ in stream]
        assert tokens == ["t0~1", "t2", "t2~3", "t4"]
        assert stream.resume_token == "te"


async def test_a_token_within_a_frame_is_kept_until_that_frame_has_passed() -> None:
    async def splits_it(request: pb.StreamEventsRequest, context: Context) -> Frames:
        yield opened()
        yield events(1)
        await asyncio.Event().wait()

    script = Script([splits_it, repeats_itself])
    async with played(script) as client:
        stream = client.runs.stream("r", resume_token="t~3", idle_timeout=0.1)
        assert stream.resume_token == "t~3"
        with pytest.raises(IdleTimeout):
            await anext(stream)
        assert stream.resume_token == "t1~3"
        again = client.runs.stream("r", resume_token=stream.resume_token)
        assert [event.sequence async for event in again] == [4]
    assert [request.resume_token for request in script.requests] == ["t", "t1"]


@pytest.mark.parametrize("token", ["~", "t~", "~3", "t~-1", "t~x", "t~01", "t~1~2~3", "t~\u00b2", "t~" + "9" * 5_000])
async def test_a_damaged_token_is_refused(token: str) -> None:
    script = Script()
    async with played(script) as client:
        with pytest.raises(ResumeTokenInvalid):
            client.runs.stream("r", resume_token=token)


async def test_leaving_the_block_ends_the_call() -> None:
    left = asyncio.Event()

    async def waits(request: pb.StreamEventsRequest, context: Context) -> Frames:
        try:
            yield opened()
            yield events(1, 2)
            await asyncio.Event().wait()
        finally:
            left.set()

    async with played(Script([waits])) as client:
        async with client.runs.stream("r") as stream:
            await anext(stream)
        await left.wait()
