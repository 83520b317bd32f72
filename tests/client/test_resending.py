"""What a producer does when its calls end in other ways than they should."""

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from client.scripted import Context, PublishAct, Script, abort, played, status
from lavant.client import InvalidField, ProducerFenced, ProducerGap
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED

Requests = AsyncIterator[pb.PublishEventsRequest]
Responses = AsyncIterator[pb.PublishEventsResponse]


def receipt(batch: pb.ProducerBatch) -> pb.PublishEventsResponse:
    last = batch.first_producer_sequence + len(batch.events) - 1
    made = pb.BatchReceipt(
        last_producer_sequence=last, first_sequence=batch.first_producer_sequence, last_sequence=last
    )
    return pb.PublishEventsResponse(run_id=batch.run_id, receipt=made)


async def answers(requests: Requests, context: Context) -> Responses:
    async for request in requests:
        yield receipt(request.batch)


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
            yield pb.PublishEventsResponse(run_id=request.batch.run_id, rejection=refusal)

    return act


GAP = grpc.StatusCode.FAILED_PRECONDITION


async def has_no_room(requests: Requests, context: Context) -> Responses:
    async for _ in requests:
        await abort(context, status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"))
        yield pb.PublishEventsResponse()


CUTS = {
    "lost receipt": loses_the_receipt,
    "ended": ends_at_once,
    "no room for the call": has_no_room,
    "store away": rejects(status(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")),
    "gap that is held": rejects(status(GAP, "PRODUCER_GAP", expected_producer_sequence="1")),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_what_has_no_receipt_is_sent_again_identically(cut: PublishAct) -> None:
    script = Script(publishes=[cut, answers])
    async with played(script) as client, client.runs.start("agent", on_error="raise") as run:
        await run.custom("a.b", 1)
    first, second = script.batches
    assert first[0] == second[0]
    assert sum(len(batch.events) for batch in second) == 3


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (status(GAP, "PRODUCER_GAP", expected_producer_sequence="99"), ProducerGap),
        (status(grpc.StatusCode.ABORTED, "PRODUCER_FENCED"), ProducerFenced),
        (status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), InvalidField),
    ],
)
async def test_a_refusal_is_final(refusal: Status, kind: type[Exception]) -> None:
    script = Script(publishes=[rejects(refusal)])
    async with played(script) as client:
        run = client.runs.start("agent", on_error="raise")
        await run.__aenter__()
        with pytest.raises(kind):
            await run.flush(5)
        with pytest.raises(kind):
            await run.__aexit__(None, None, None)
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
    gap = rejects(status(GAP, "PRODUCER_GAP", expected_producer_sequence="1"))
    async with played(Script(publishes=[gap] * 10)) as client:
        run = client.runs.start("agent", on_error="raise")
        await run.__aenter__()
        with pytest.raises(ProducerGap):
            await run.flush(20)
        with pytest.raises(ProducerGap):
            await run.__aexit__(None, None, None)


async def test_a_silent_producer_gives_signs_of_life() -> None:
    async def asks_to_cancel_at_a_sign_of_life(requests: Requests, context: Context) -> Responses:
        async for request in requests:
            yield receipt(request.batch)
            if not request.batch.events:
                cancel = pb.CancelRequest(reason="heard you")
                yield pb.PublishEventsResponse(run_id=request.batch.run_id, cancel_request=cancel)

    async with (
        played(Script(publishes=[asks_to_cancel_at_a_sign_of_life])) as client,
        client.runs.start("agent", on_error="raise", producer_timeout=0.15) as run,
    ):
        await run.wait_cancelled()
        assert run.cancel_reason == "heard you"
