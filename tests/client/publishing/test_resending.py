"""What a producer does when its calls end in other ways than they should."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from lavant.client import InvalidField, ProducerFenced, ProducerGap, RunExists
from lavant.client._async import backlog
from lavant.client._wire.status import Backoff
from lavant.v1 import error_pb2
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED
from support.scripted import Context, PublishAct, Script, abort, events, opened, played, status

Requests = AsyncIterator[pb.PublishEventsRequest]
Responses = AsyncIterator[pb.PublishEventsResponse]


def answer_to(
    batch: pb.ProducerBatch, *, receipt: pb.BatchReceipt | None = None, rejection: Status | None = None
) -> pb.PublishEventsResponse:
    """Answer one batch."""
    answer = pb.BatchAnswer(
        run_id=batch.run_id,
        producer_id=batch.producer_id,
        first_producer_sequence=batch.first_producer_sequence,
        producer_epoch=batch.producer_epoch,
        receipt=receipt,
        rejection=rejection,
    )
    return pb.PublishEventsResponse(answers=[answer])


def receipt(batch: pb.ProducerBatch) -> pb.PublishEventsResponse:
    last = batch.first_producer_sequence + len(batch.events) - 1
    made = pb.BatchReceipt(
        last_producer_sequence=last, first_sequence=batch.first_producer_sequence, last_sequence=last
    )
    return answer_to(batch, receipt=made)


async def answers(requests: Requests, context: Context) -> Responses:
    async for request in requests:
        for batch in request.batches:
            yield receipt(batch)


async def loses_the_receipt(requests: Requests, context: Context) -> Responses:
    async for _ in requests:
        await abort(context, status(grpc.StatusCode.UNAVAILABLE))
        yield pb.PublishEventsResponse()


async def ends_at_once(requests: Requests, context: Context) -> Responses:
    async for _ in requests:
        return
    yield pb.PublishEventsResponse()


def rejects(refusal: Status) -> PublishAct:
    async def act(requests: Requests, context: Context) -> Responses:
        async for request in requests:
            for batch in request.batches:
                yield answer_to(batch, rejection=refusal)

    return act


def gap(expected: int) -> Status:
    """The rejection of a batch before which numbers are missing."""
    rejection = status(grpc.StatusCode.FAILED_PRECONDITION, "PRODUCER_GAP")
    detail = AnyMessage()
    detail.Pack(error_pb2.ProducerGap(expected_producer_sequence=expected))
    rejection.details.append(detail)
    return rejection


async def has_no_room(requests: Requests, context: Context) -> Responses:
    async for _ in requests:
        await abort(context, status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"))
        yield pb.PublishEventsResponse()


CUTS = {
    "lost receipt": loses_the_receipt,
    "ended": ends_at_once,
    "no room for the call": has_no_room,
    "store away": rejects(status(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")),
    "gap that is held": rejects(gap(1)),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_what_has_no_receipt_is_sent_again_identically(cut: PublishAct) -> None:
    script = Script(publishes=[cut, answers])
    async with played(script) as client, client.runs.start("agent", on_error="raise") as run:
        await run.custom("a.b", 1)
    first, second = script.batches
    assert first[0] == second[0]
    assert sum(len(batch.events) for batch in second) == 3


async def test_a_run_that_ends_at_once_is_one_call() -> None:
    script = Script(publishes=[answers])
    async with played(script) as client, client.runs.start("agent", labels={"team": "a"}) as run:
        for _ in range(20):
            await run.text("x")
    assert script.calls == ["AppendEvents"]
    [[batch]] = script.batches
    assert (batch.run_id, batch.create.name, batch.create.labels["team"]) == (run.id, "agent", "a")
    assert (batch.events[0].HasField("run_started"), batch.events[-1].HasField("run_finished")) == (True, True)
    assert len(batch.events) == 24


async def test_a_run_that_ends_at_once_is_sent_again_whole() -> None:
    script = Script(publishes=[loses_the_receipt, loses_the_receipt, answers])
    async with played(script) as client, client.runs.start("agent") as run:
        await run.text("x")
    assert script.calls == ["AppendEvents"] * 3
    assert script.batches[0] == script.batches[1] == script.batches[2]


async def test_a_longer_run_creates_itself_with_its_first_batch() -> None:
    script = Script(publishes=[answers])
    async with played(script) as client, client.runs.start("agent") as run:
        assert await run.flush()
        await run.text("x")
    assert script.calls == ["PublishEvents"]
    [[first, *later]] = script.batches
    assert first.create.name == "agent"
    assert not any(batch.HasField("create") for batch in later)


async def test_a_call_about_a_run_waits_for_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "LAST_SECONDS", 3_600.0)
    answered = asyncio.Event()

    async def holds(requests: Requests, context: Context) -> Responses:
        await answered.wait()
        async for response in answers(requests, context):
            yield response

    async def reads(request: pb.StreamEventsRequest, context: Context) -> AsyncIterator[pb.StreamEventsResponse]:
        yield opened()
        yield events(1, 2)

    async with played(Script([reads, reads], [holds])) as client:
        run = client.runs.start("agent", run_id="held").begin()
        assert (await anext(client.runs.stream("r"))).sequence == 1
        held = asyncio.create_task(anext(client.runs.stream("held")))
        answered.set()
        assert (await held).sequence == 1
        assert run.last_receipt is not None
        run.end()


async def test_refused_settings_are_not_sent_again() -> None:
    refusal = status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    detail = AnyMessage()
    detail.Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field="batch.create.labels")]))
    refusal.details.append(detail)
    script = Script(publishes=[rejects(refusal)])
    async with played(script) as client:
        with pytest.raises(InvalidField):
            await client.runs.start("agent", on_error="raise").__aenter__()
    assert len(script.calls) == 1


async def test_the_block_of_a_strict_run_raises_that_another_run_has_its_id() -> None:
    script = Script(publishes=[rejects(status(grpc.StatusCode.ALREADY_EXISTS, "RUN_EXISTS"))])
    async with played(script) as client:
        with pytest.raises(RunExists):
            await client.runs.start("agent", run_id="r", on_error="raise").__aenter__()
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (gap(99), ProducerGap),
        (status(grpc.StatusCode.ABORTED, "PRODUCER_FENCED"), ProducerFenced),
        (status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), InvalidField),
    ],
)
async def test_a_refusal_is_final(refusal: Status, kind: type[Exception]) -> None:
    script = Script(publishes=[rejects(refusal)])
    async with played(script) as client:
        with pytest.raises(kind):
            await client.runs.start("agent", on_error="raise").__aenter__()
    # Refused for its content, the run is ended over a call of its own.
    assert len(script.batches) == (2 if kind is InvalidField else 1)


def refused_event(index: int) -> Status:
    """The refusal of one event of a batch for what it holds."""
    refusal = status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    detail = AnyMessage()
    detail.Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field=f"batch.events[{index}].payload")]))
    refusal.details.append(detail)
    return refusal


async def test_a_run_begins_and_ends_for_a_server_that_refuses_its_first_and_last_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(
        publishes=[rejects(refused_event(0)), rejects(refused_event(2)), rejects(refused_event(1)), answers]
    )
    async with played(script) as client:
        run = client.runs.start("agent", input={"q": 1}).begin()
        await run.custom("a.b", 1)
        run.output = 2
        run.end()
        assert await run.flush(20)
    [stored] = script.batches[-1]
    first, second, last = stored.events
    assert (first.HasField("run_started"), first.run_started.input_json) == (True, "")
    assert second.HasField("error_reported")
    assert (last.run_finished.state, last.run_finished.output_json) == (RUN_STATE_SUCCEEDED, "")
    assert "out of reach" not in caplog.text


async def test_a_gap_that_does_not_close_is_an_error() -> None:
    async with played(Script(publishes=[rejects(gap(1))] * 10)) as client:
        with pytest.raises(ProducerGap):
            await client.runs.start("agent", on_error="raise").__aenter__()


async def test_a_silent_producer_gives_signs_of_life() -> None:
    async def asks_to_cancel_at_a_sign_of_life(requests: Requests, context: Context) -> Responses:
        async for request in requests:
            for batch in request.batches:
                yield receipt(batch)
                if not batch.events:
                    cancel = pb.CancelRequest(run_id=batch.run_id, reason="heard you")
                    yield pb.PublishEventsResponse(cancel_requests=[cancel])

    async with (
        played(Script(publishes=[asks_to_cancel_at_a_sign_of_life])) as client,
        client.runs.start("agent", on_error="raise", producer_timeout=0.15) as run,
    ):
        await run.wait_cancelled()
        assert run.cancel_reason == "heard you"


async def test_calls_that_end_after_an_answer_to_nothing_are_made_ever_more_rarely() -> None:
    ceilings: list[float] = []
    is_well = asyncio.Event()

    def new_backoff() -> Backoff:
        def record(_: float, high: float) -> float:
            ceilings.append(high)
            return 0.0

        return Backoff(initial=1.0, maximum=8.0, uniform=record)

    async def answers_once(requests: Requests, context: Context) -> Responses:
        async for request in requests:
            yield receipt(request.batches[0])
            return

    async def is_well_again(requests: Requests, context: Context) -> Responses:
        is_well.set()
        async for response in answers(requests, context):
            yield response

    async with played(Script(publishes=[*[answers_once] * 6, is_well_again])) as client:
        client._connection.new_backoff = new_backoff
        async with client.runs.start("agent", on_error="raise"):
            await is_well.wait()
    assert ceilings == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
