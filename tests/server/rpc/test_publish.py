"""PublishEvents: many runs over one call, each batch acknowledged once durable."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode, aio

from lavant.v1.error_pb2 import ProducerGap
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchAnswer, BatchReceipt, PublishEventsRequest, PublishEventsResponse
from support.calls import answer, append, create, ended_run, get, listed, publish, publishing, until
from support.engines import bare
from support.events import a_run_of, batch_of, custom, run_finished, run_started
from support.server import Server, connected, serving
from support.status import refused, rejection


def receipts(responses: Sequence[BatchAnswer]) -> list[tuple[str, int]]:
    """The runs and last sequences of answers that must all be receipts."""
    assert all(response.HasField("receipt") for response in responses), responses
    return [(response.run_id, response.receipt.last_sequence) for response in responses]


async def test_answers_keep_the_order_of_the_batches(server: Server) -> None:
    for number in range(3):
        await create(server.stubs, f"run-{number}")
    sent: list[tuple[str, int]] = []
    async with publishing(server.stubs) as call:
        for index in range(20):
            for number in range(3):
                event = custom() if index else run_started()
                await publish(call, [event], run_id=f"run-{number}", first=index + 1)
                sent.append((f"run-{number}", index + 1))
        answers = [await answer(call) for _ in sent]
    assert receipts(answers) == sent


async def test_a_rejection_leaves_the_other_batches_alone(server: Server) -> None:
    await create(server.stubs, "good")
    await ended_run(server.stubs, "sealed")
    batches: list[tuple[list[Any], dict[str, Any], str]] = [
        ([run_started()], {"run_id": "good"}, ""),
        ([custom()], {"run_id": "sealed", "first": 5}, "RUN_SEALED"),
        ([custom()], {"run_id": "missing"}, "RUN_NOT_FOUND"),
        ([custom()], {"run_id": "good", "first": 9}, "PRODUCER_GAP"),
        ([custom()], {"run_id": "../etc", "first": 2}, "INVALID_FIELD"),
        ([run_started()], {"run_id": "good", "first": 2}, "INVALID_FIELD"),
        ([custom()], {"run_id": "good", "first": 2}, ""),
        ([custom()], {"run_id": "good", "first": 2}, "PRODUCER_CONFLICT"),
        ([custom()], {"run_id": "good", "epoch": 1}, ""),
        ([custom()], {"run_id": "good", "first": 3}, "PRODUCER_FENCED"),
        ([run_finished()], {"run_id": "good", "epoch": 1, "first": 2}, ""),
    ]
    async with publishing(server.stubs) as call:
        for events, numbers, _ in batches:
            await publish(call, events, **numbers)
        await call.done_writing()
        answers = cast("list[BatchAnswer]", await call.rest())
        assert await call.code() == StatusCode.OK

    assert [response.run_id for response in answers] == [numbers["run_id"] for _, numbers, _ in batches]
    for response, (_, _, reason) in zip(answers, batches, strict=True):
        if reason:
            rejection(response.rejection, reason)
        else:
            assert response.HasField("receipt"), response
    gap = rejection(answers[3].rejection, "PRODUCER_GAP")
    assert gap.detail(ProducerGap) == ProducerGap(expected_producer_sequence=2)
    assert len(await listed(server.stubs, "good")) == 4


async def test_each_answer_names_its_batch(server: Server) -> None:
    await create(server.stubs)
    sent: list[tuple[str, int, int, list[Event]]] = [
        ("a", 0, 1, [run_started()]),
        ("b", 7, 1, [custom(), custom()]),
        ("a", 0, 9, [custom()]),
        ("b", 7, 3, []),
        ("a", 0, 2, [custom()]),
    ]
    async with publishing(server.stubs) as call:
        for producer_id, epoch, first, events in sent:
            await publish(call, events, producer_id=producer_id, epoch=epoch, first=first)
        answers = [await answer(call) for _ in sent]
    named = [(found.producer_id, found.producer_epoch, found.first_producer_sequence) for found in answers]
    assert named == [(producer_id, epoch, first) for producer_id, epoch, first, _ in sent]
    outcomes = [found.WhichOneof("outcome") for found in answers]
    assert outcomes == ["receipt", "receipt", "rejection", "receipt", "receipt"]


async def test_gaps_after_a_rejection_are_marked_until_a_batch_is_stored(server: Server) -> None:
    await create(server.stubs)
    batches: list[tuple[list[Event], dict[str, Any], bool | None]] = [
        ([run_started()], {"first": 1}, None),
        ([custom()], {"first": 9, "producer_id": "other"}, False),
        ([run_started()], {"first": 2}, None),  # INVALID_FIELD: the run has started
        ([custom()], {"first": 3}, True),
        ([], {"first": 4}, None),
        ([custom()], {"first": 4}, True),
        ([custom()], {"first": 9, "producer_id": "third"}, False),
        ([custom()], {"first": 2}, None),
        ([custom()], {"first": 4}, False),
    ]
    async with publishing(server.stubs) as call:
        for events, numbers, _ in batches:
            await publish(call, events, **numbers)
        answers = [await answer(call) for _ in batches]
    for found, (_, _, follows) in zip(answers, batches, strict=True):
        if follows is not None:
            gap = rejection(found.rejection, "PRODUCER_GAP").detail(ProducerGap)
            assert gap.follows_rejection == follows


async def test_a_batch_sent_again_on_another_call_is_a_duplicate(server: Server) -> None:
    await create(server.stubs)
    events = a_run_of(5)
    found = []
    for _ in range(2):
        async with publishing(server.stubs) as call:
            await publish(call, events)
            found.append((await answer(call)).receipt)
    first = BatchReceipt(last_producer_sequence=5, first_sequence=1, last_sequence=5)
    assert found == [first, BatchReceipt(last_producer_sequence=5, first_sequence=1, last_sequence=5, duplicate=True)]


async def test_a_client_that_sends_nothing_more_gets_the_rest_of_its_answers(server: Server) -> None:
    await create(server.stubs)
    events = a_run_of(100)
    async with publishing(server.stubs) as call:
        for index, event in enumerate(events):
            await publish(call, [event], first=index + 1)
        await call.done_writing()
        answers = cast("list[BatchAnswer]", await call.rest())
        assert await call.code() == StatusCode.OK
    assert receipts(answers) == [("run", index) for index in range(1, 101)]
    assert bare(await listed(server.stubs)) == events


async def test_a_call_without_any_batch_ends_with_ok(server: Server) -> None:
    async with publishing(server.stubs) as call:
        await call.done_writing()
        assert await call.rest() == []
        assert await call.code() == StatusCode.OK


async def test_a_malformed_message_is_refused_after_the_earlier_answers(server: Server) -> None:
    await create(server.stubs)
    path = "/lavant.v1.EventService/PublishEvents"
    batches = [batch_of([event], first=number) for number, event in enumerate(a_run_of(9), 1)]
    call: Any = server.stubs.channel.stream_stream(path)(timeout=20)
    for batch in batches:
        await call.write(PublishEventsRequest(batches=[batch]).SerializeToString())
    await call.write(b"\xff\xff\xff")

    answers: list[BatchAnswer] = []
    while len(answers) < len(batches):
        answers += PublishEventsResponse.FromString(await call.read()).answers
    assert receipts(answers) == [("run", number) for number in range(1, 10)]
    with refused("INVALID_FIELD", "request"):
        await call.read()
    assert (await get(server.stubs)).last_sequence == 9


async def test_a_client_that_goes_away_leaves_what_it_sent(server: Server) -> None:
    await create(server.stubs)
    async with publishing(server.stubs) as call:
        await publish(call, a_run_of(3, finished=False))
        await answer(call)
        await until(lambda: len(server.app.calls) == 1)
    await server.app.calls.ended()
    assert (await append(server.stubs, [custom()], first=4)).last_sequence == 4


async def test_all_that_was_taken_in_is_acknowledged_when_the_server_drains(server: Server) -> None:
    await create(server.stubs)
    async with publishing(server.stubs) as call:
        for index, event in enumerate(a_run_of(50)):
            await publish(call, [event], first=index + 1)
        server.app.calls.drain()
        answers = []
        with refused("UNAVAILABLE") as refusal:
            while True:
                answers.append(await answer(call))
    await server.app.calls.ended()
    assert refusal.detail(RetryInfo).retry_delay.ToNanoseconds() > 0
    assert receipts(answers) == [("run", index) for index in range(1, len(answers) + 1)]
    assert (await get(server.stubs)).last_sequence == len(answers)
    async with publishing(server.stubs) as call:
        with refused("UNAVAILABLE"):
            await answer(call)


async def test_an_idle_call_is_ended_by_a_draining_server(server: Server) -> None:
    await create(server.stubs)
    async with publishing(server.stubs) as call:
        await publish(call)
        await answer(call)
        server.app.calls.drain()
        with refused("UNAVAILABLE"):
            await answer(call)


async def test_a_producer_that_reads_no_receipts_is_bounded_and_disturbs_nobody(tmp_path: Path) -> None:
    size = 20_000
    async with serving(tmp_path, write_timeout=1) as server, connected(server.target) as other:
        await create(server.stubs, deaf := "d" * 128)
        await create(server.stubs, "brisk")

        async def flood() -> None:
            await publish(call, [run_started()], run_id=deaf)
            for index in range(2, size):
                await publish(call, [custom()], run_id=deaf, first=index)

        async with publishing(server.stubs) as call:
            flooding = asyncio.create_task(flood())
            async with publishing(other) as brisk:
                for index, event in enumerate(a_run_of(50)):
                    await publish(brisk, [event], run_id="brisk", first=index + 1)
                    assert (await answer(brisk)).receipt.last_sequence == index + 1
            await server.app.calls.ended()
            taken_in = (await get(other, deaf)).last_sequence
            assert taken_in < size / 2
            answers = []
            with suppress(aio.AioRpcError):
                while True:
                    answers.append(await answer(call))
            assert await call.code() != StatusCode.OK
            await asyncio.wait({flooding}, timeout=20)
            assert flooding.done()
            flooding.exception()
    assert receipts(answers) == [(deaf, index) for index in range(1, len(answers) + 1)]
    assert len(answers) <= taken_in


async def test_batches_of_one_request_are_answered_each(server: Server) -> None:
    for run_id in ("a", "b"):
        await create(server.stubs, run_id)
    sent = [
        batch_of([run_started()], run_id="a"),
        batch_of([run_started()], run_id="b"),
        batch_of([custom()], run_id="missing"),
        batch_of([custom()], run_id="a", first=2),
        batch_of(run_id="b"),
        batch_of([custom()], run_id="a", first=4),
    ]
    async with publishing(server.stubs) as call:
        await call.write(PublishEventsRequest(batches=sent))
        await call.write(PublishEventsRequest())
        answers = [await answer(call) for _ in sent]
        await publish(call, [custom()], run_id="a", first=3)
        assert (await answer(call)).receipt.last_sequence == 3
    found = [(each.run_id, each.first_producer_sequence, each.WhichOneof("outcome")) for each in answers]
    assert found == [
        ("a", 1, "receipt"),
        ("b", 1, "receipt"),
        ("missing", 1, "rejection"),
        ("a", 2, "receipt"),
        ("b", 1, "receipt"),
        ("a", 4, "rejection"),
    ]


async def test_batches_of_one_commit_are_answered_in_one_response(server: Server) -> None:
    await create(server.stubs)
    sent = [batch_of([event], first=number) for number, event in enumerate(a_run_of(50), 1)]
    async with publishing(server.stubs) as call:
        await call.write(PublishEventsRequest(batches=sent))
        answers: list[BatchAnswer] = []
        responses = 0
        while len(answers) < len(sent):
            response = await call.call.read()
            assert isinstance(response, PublishEventsResponse)
            answers += response.answers
            responses += 1
    assert receipts(answers) == [("run", number) for number in range(1, 51)]
    assert responses <= 5  # all are queued before the first is committed


async def test_a_request_with_too_many_batches_ends_the_call(server: Server) -> None:
    await create(server.stubs)
    async with publishing(server.stubs) as call:
        await publish(call, [run_started()])
        await call.write(PublishEventsRequest(batches=[batch_of() for _ in range(257)]))
        assert (await answer(call)).receipt.last_sequence == 1
        with refused("INVALID_FIELD", "batches"):
            await answer(call)
