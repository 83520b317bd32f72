"""Batches that create their run, over AppendEvents and PublishEvents."""

import pytest

from lavant.v1 import event_service_pb2 as pb
from lavant.v1.error_pb2 import ProducerGap
from lavant.v1.run_pb2 import RunSettings, RunState
from support.calls import answer, append, create, get, publish, publishing
from support.events import a_run_of, custom, run_started
from support.server import Server
from support.status import refused, rejection
from support.streams import opened, read_to_end

SETTINGS = RunSettings(name="weather", labels={"team": "search"})


async def test_one_call_records_a_whole_run(server: Server) -> None:
    events = a_run_of(9)
    receipt = await append(server.stubs, events, create=SETTINGS)
    assert (receipt.first_sequence, receipt.last_sequence) == (1, 9)
    run = await get(server.stubs)
    assert (run.name, dict(run.labels), run.state) == ("weather", {"team": "search"}, RunState.RUN_STATE_SUCCEEDED)
    assert (await append(server.stubs, events, create=SETTINGS)).duplicate
    assert await create(server.stubs, labels={"team": "search"}) == run


async def test_a_run_with_other_settings_is_refused(server: Server) -> None:
    await create(server.stubs)
    with refused("RUN_EXISTS") as refusal:
        await append(server.stubs, [run_started()], create=SETTINGS)
    assert refusal.metadata == {"run_id": "run"}


@pytest.mark.parametrize("run_id", ["", "a b", "lavant.rule.1"])
async def test_a_run_without_a_valid_id_is_not_created(server: Server, run_id: str) -> None:
    with refused("INVALID_FIELD", "batch.run_id"):
        await append(server.stubs, [run_started()], run_id=run_id, create=SETTINGS)


async def test_each_batch_of_a_call_may_create_its_run(server: Server) -> None:
    async with publishing(server.stubs) as call:
        for number in range(3):
            await publish(call, [run_started()], run_id=f"run-{number}", create=SETTINGS)
            await publish(call, [custom()], run_id=f"run-{number}", first=2, create=SETTINGS)
        for number in range(3):
            for last in (1, 2):
                found = await answer(call)
                assert (found.run_id, found.receipt.last_sequence) == (f"run-{number}", last)


async def test_batches_after_a_refused_creation_are_gaps(server: Server) -> None:
    async with publishing(server.stubs) as call:
        await publish(call, [custom()], create=SETTINGS)
        await publish(call, [custom()], first=2, create=SETTINGS)
        rejection((await answer(call)).rejection, "INVALID_FIELD")
        gap = rejection((await answer(call)).rejection, "PRODUCER_GAP").detail(ProducerGap)
        assert gap == ProducerGap(expected_producer_sequence=1, follows_rejection=True)


@pytest.mark.parametrize("start", [pb.START_POSITION_BEGINNING, pb.START_POSITION_NOW])
async def test_a_stream_that_waits_gets_the_events_of_the_batch_that_creates(
    server: Server, start: pb.StartPosition
) -> None:
    waiting = await opened(server.stubs, wait_for_run=True, start=start)
    await append(server.stubs, a_run_of(5), create=SETTINGS)
    assert (await read_to_end(waiting)).sequences == [1, 2, 3, 4, 5]
