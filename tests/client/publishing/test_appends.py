"""Runs that end at the same time are sent together, and do not depend on each other."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from lavant.client import AsyncClient, Client, RunExists
from lavant.client._async import appends
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.run_pb2 import RunSettings
from support.events import run_finished, run_started
from support.scripted import Context, PublishAct, Script, abort, played, status
from support.server import Server

Requests = AsyncIterator[pb.PublishEventsRequest]
Responses = AsyncIterator[pb.PublishEventsResponse]


def answer(batch: pb.ProducerBatch, **outcome: object) -> pb.BatchAnswer:
    if not outcome:
        outcome["receipt"] = pb.BatchReceipt(last_producer_sequence=len(batch.events), last_sequence=len(batch.events))
    return pb.BatchAnswer(
        run_id=batch.run_id,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        first_producer_sequence=batch.first_producer_sequence,
        **outcome,  # type: ignore[arg-type]
    )


async def answers(requests: Requests, context: Context) -> Responses:
    async for request in requests:
        yield pb.PublishEventsResponse(answers=[answer(batch) for batch in request.batches])


def refuses(code: grpc.StatusCode, reason: str = "", *, answered: int = 0) -> PublishAct:
    """Answer some batches, then end the call with a status."""

    async def act(requests: Requests, context: Context) -> Responses:
        async for request in requests:
            yield pb.PublishEventsResponse(answers=[answer(batch) for batch in request.batches[:answered]])
            await abort(context, status(code, reason))

    return act


async def record(client: AsyncClient, run_id: str) -> None:
    run = client.runs.start("agent", run_id=run_id, on_error="raise").begin()
    await run.text("It is cold.")
    run.end()
    await run.flush(20.0)


async def record_all(client: AsyncClient, *run_ids: str) -> list[BaseException | None]:
    return await asyncio.gather(*(record(client, run_id) for run_id in run_ids), return_exceptions=True)


def batch(run_id: str) -> pb.ProducerBatch:
    return pb.ProducerBatch(
        run_id=run_id,
        producer_id="p",
        producer_epoch=1,
        first_producer_sequence=1,
        events=[run_started(), run_finished()],
        create=RunSettings(name="agent"),
    )


async def test_runs_that_end_at_once_are_one_call() -> None:
    script = Script(publishes=[answers])
    names = [f"run-{number}" for number in range(50)]
    async with played(script) as client:
        assert await record_all(client, *names) == [None] * 50
    assert script.calls == ["PublishEvents"]
    assert [(one.run_id, len(one.events)) for one in script.batches[0]] == [(name, 5) for name in names]


async def test_rejection_of_one_run_leaves_the_others_alone() -> None:
    async def rejects_b(requests: Requests, context: Context) -> Responses:
        refusal = status(grpc.StatusCode.ALREADY_EXISTS, "RUN_EXISTS")
        async for request in requests:
            for one in request.batches:
                found = answer(one, rejection=refusal) if one.run_id == "b" else answer(one)
                yield pb.PublishEventsResponse(answers=[found])

    script = Script(publishes=[rejects_b])
    async with played(script) as client:
        first, second, third = await record_all(client, "a", "b", "c")
    assert (first, type(second), third) == (None, RunExists, None)
    assert script.calls == ["PublishEvents"]


async def test_a_refused_call_is_repeated_batch_by_batch() -> None:
    script = Script(publishes=[refuses(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), *[answers] * 3])
    async with played(script) as client:
        assert await record_all(client, "a", "b", "c") == [None] * 3
    assert script.calls == ["PublishEvents", *["AppendEvents"] * 3]
    assert sorted(one.run_id for sent in script.batches[1:] for one in sent) == ["a", "b", "c"]


@pytest.mark.parametrize("answered", [0, 2])
async def test_a_cut_call_is_repeated_for_what_has_no_answer(answered: int) -> None:
    script = Script(publishes=[refuses(grpc.StatusCode.UNAVAILABLE, answered=answered), *[answers] * 4])
    async with played(script) as client:
        assert await record_all(client, "a", "b", "c", "d") == [None] * 4
    first, *rest = script.batches
    again = {one.run_id: one for sent in rest for one in sent}
    assert again == {one.run_id: one for one in first[answered:]}


async def test_a_server_that_ends_the_call_too_early_gets_the_rest_again() -> None:
    async def ends_early(requests: Requests, context: Context) -> Responses:
        async for request in requests:
            yield pb.PublishEventsResponse(answers=[answer(request.batches[0])])
            return

    script = Script(publishes=[ends_early, *[answers] * 2])
    async with played(script) as client:
        assert await record_all(client, "a", "b", "c") == [None] * 3
    assert Counter(one.run_id for sent in script.batches for one in sent) == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_cancelled_sender_of_a_group_leaves_the_others_alone(is_sent: bool) -> None:
    received = asyncio.Event()

    async def never_answers(requests: Requests, context: Context) -> Responses:
        async for _ in requests:
            received.set()
        await asyncio.Event().wait()
        yield pb.PublishEventsResponse()

    script = Script(publishes=[*[never_answers] * is_sent, *[answers] * 2])
    async with played(script) as client:
        tasks = [asyncio.create_task(client._connection.appends.append(batch(name))) for name in "abc"]
        if is_sent:
            await received.wait()
        else:
            await asyncio.sleep(0)  # so that all wait for the turn in which they are sent
        tasks[0].cancel()
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert [receipt.last_sequence for receipt in others if isinstance(receipt, pb.BatchReceipt)] == [2, 2]
    assert script.calls == [*["PublishEvents"] * is_sent, "AppendEvents", "AppendEvents"]


async def test_requests_stay_within_the_bounds_of_servers() -> None:
    many = list(appends._requests([appends._Append(batch(str(number))) for number in range(600)]))
    assert [len(request.batches) for request in many] == [256, 256, 88]
    large = batch("large")
    large.events[0].run_started.input_json = '"' + "x" * 900_000 + '"'
    requests = list(appends._requests([appends._Append(large) for _ in range(5)]))
    assert [len(request.batches) for request in requests] == [2, 2, 1]


async def test_hundreds_of_runs_at_once_are_stored_whole(server: Server, client: AsyncClient) -> None:
    names = [f"run-{number}" for number in range(600)]
    assert await record_all(client, *names) == [None] * 600
    assert {run.id async for run in client.runs.list(states=["succeeded"], page_size=1_000)} == set(names)


async def test_threads_that_end_runs_at_once_store_them_whole(server: Server, client: AsyncClient) -> None:
    def record_blocking(blocking: Client, number: int) -> None:
        with blocking.runs.start("agent", run_id=f"run-{number}", on_error="raise") as run:
            run.text("It is cold.")

    def record_blocking_all() -> None:
        with Client(server.target) as blocking, ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda number: record_blocking(blocking, number), range(100)))

    await asyncio.to_thread(record_blocking_all)
    assert len([run async for run in client.runs.list(states=["succeeded"])]) == 100
