"""Acts of scripted servers: calls that end, answers to batches, and frames of a newer contract."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from lavant.v1 import event_service_pb2 as pb
from support.calls import until
from support.scripted import Context, PublishAct, Script, StreamAct, abort, end, events, opened, status

Answer: TypeAlias = pb.BatchAnswer | Status | None
Frame: TypeAlias = pb.StreamEventsResponse | asyncio.Event
_Message = TypeVar("_Message", bound=Message)
RUN_FINISHED = end(pb.STREAM_END_REASON_RUN_FINISHED)
FOREVER = asyncio.Event
UNAVAILABLE = status(grpc.StatusCode.UNAVAILABLE)  # without an ErrorReason: the connection was cut
LATER_FIELD = 9_999


def plays(*frames: Frame, then: Status | None = None) -> StreamAct:
    """Return an act that sends frames and ends with a status; without one, with OK. It waits for events in between."""

    async def act(request: pb.StreamEventsRequest, context: Context) -> AsyncIterator[pb.StreamEventsResponse]:
        for frame in frames:
            if isinstance(frame, asyncio.Event):
                await frame.wait()
            else:
                yield frame
        if then is not None:
            await abort(context, then)

    return act


def whole(*sequences: int) -> StreamAct:
    """Return an act that sends events, of which the last one finishes the run, and the end."""
    return plays(opened(), events(*sequences, last=True), RUN_FINISHED)


def answers(*decisions: Callable[[pb.ProducerBatch], Answer]) -> list[PublishAct]:
    """Return an act for each decision about batches: an answer, a status to end the call with, or None: no answer."""
    return [_answering(decide) for decide in decisions]


def _answering(decide: Callable[[pb.ProducerBatch], Answer]) -> PublishAct:
    async def act(
        requests: AsyncIterator[pb.PublishEventsRequest], context: Context
    ) -> AsyncIterator[pb.PublishEventsResponse]:
        async for request in requests:
            for batch in request.batches:
                answer = decide(batch)
                if isinstance(answer, Status):
                    await abort(context, answer)
                elif answer is not None:
                    yield pb.PublishEventsResponse(answers=[answer])

    return act


def swallows(cut: asyncio.Event) -> PublishAct:
    """Return an act that reads batches without an answer, until its call is cut."""

    async def act(
        requests: AsyncIterator[pb.PublishEventsRequest], context: Context
    ) -> AsyncIterator[pb.PublishEventsResponse]:
        reading = asyncio.create_task(_drain(requests))
        try:
            await cut.wait()
        finally:
            reading.cancel()
        await abort(context, UNAVAILABLE)
        yield pb.PublishEventsResponse()

    return act


async def _drain(requests: AsyncIterator[pb.PublishEventsRequest]) -> None:
    async for _ in requests:
        pass


def last(batch: pb.ProducerBatch) -> int:
    """Return the number of a batch's last event; of an empty one, of the event before it."""
    return batch.first_producer_sequence + len(batch.events) - 1


def receipt(batch: pb.ProducerBatch, *, duplicate: bool = False) -> pb.BatchAnswer:
    """Answer a batch as durable."""
    answer = _answer(batch)
    answer.receipt.last_producer_sequence = last(batch)
    answer.receipt.duplicate = duplicate
    if batch.events:
        answer.receipt.first_sequence, answer.receipt.last_sequence = batch.first_producer_sequence, last(batch)
    return answer


def rejected(batch: pb.ProducerBatch, rejection: Status) -> pb.BatchAnswer:
    """Answer that nothing of a batch was stored."""
    answer = _answer(batch)
    answer.rejection.CopyFrom(rejection)
    return answer


def _answer(batch: pb.ProducerBatch) -> pb.BatchAnswer:
    return pb.BatchAnswer(
        run_id=batch.run_id,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        first_producer_sequence=batch.first_producer_sequence,
    )


def with_detail(refusal: Status, detail: Message) -> Status:
    """Return a status with one more detail."""
    packed = AnyMessage()
    packed.Pack(detail)
    refusal.details.append(packed)
    return refusal


def retry_after(refusal: Status, seconds: float) -> Status:
    """Return a status that asks for a delay."""
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(int(seconds * 1000))
    return with_detail(refusal, info)


def of_field(path: str) -> Status:
    """Return the refusal of a field."""
    violation = BadRequest.FieldViolation(field=path, description="is not allowed")
    refusal = status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", f"{path}: is not allowed")
    return with_detail(refusal, BadRequest(field_violations=[violation]))


def with_later_field(message: _Message) -> _Message:
    """Return a message with a field that this release of the contract does not have."""
    later = pb.CaughtUp(last_sequence=7).SerializeToString()
    tag = (LATER_FIELD << 3) | 2
    prefix = bytes([tag & 0x7F | 0x80, tag >> 7 & 0x7F | 0x80, tag >> 14, len(later)])
    return type(message).FromString(message.SerializeToString() + prefix + later)


async def asked(script: Script, calls: int) -> None:
    """Wait until a script was asked for so many streams."""
    await until(lambda: len(script.requests) >= calls)


def sequences(found: Iterable[Message]) -> list[int]:
    """Return the sequences of events."""
    return [getattr(event, "sequence") for event in found]  # noqa: B009 - of any message


def batches(script: Script, call: int) -> list[pb.ProducerBatch]:
    """Return the batches of a publishing call, without those that are heartbeats."""
    return [batch for batch in script.batches[call] if batch.events]


async def sent(script: Script, events: int) -> None:
    """Wait until a script has been sent so many events over all of its publishing calls."""
    await until(lambda: sum(len(batch.events) for call in script.batches for batch in call) >= events)
