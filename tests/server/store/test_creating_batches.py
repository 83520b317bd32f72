"""Batches that create their run, put through every engine: one commit, exactly once."""

import asyncio

import pytest

from lavant.server.store.port import Engine, Notice, RunQuery
from lavant.v1.error_pb2 import ProducerGap
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run, RunKind, RunSettings, RunState
from support.clock import ManualClock
from support.engines import KEY, bare, created, refused, stored
from support.events import a_run_of, batch_of, custom, run_started

SETTINGS = RunSettings(name="weather", labels={"team": "search"}, conversation_id="c")
SETTINGS.producer_timeout.seconds = 60


async def test_a_batch_creates_its_run(engine: Engine, clock: ManualClock) -> None:
    events = a_run_of(10)
    receipt = await engine.append(KEY, batch_of(events, create=SETTINGS))
    assert (receipt.first_sequence, receipt.last_sequence, receipt.duplicate) == (1, 10, False)
    assert bare(await stored(engine)) == events
    run = await engine.get_run(KEY)
    assert (run.run_id, run.name, run.kind, dict(run.labels)) == ("run", "weather", 1, {"team": "search"})
    assert (run.conversation_id, run.producer_timeout.seconds) == ("c", 60)
    assert (run.state, run.last_sequence) == (RunState.RUN_STATE_SUCCEEDED, 10)
    assert run.create_time.ToNanoseconds() == run.end_time.ToNanoseconds() == clock.time_ns()


async def test_a_run_created_by_a_batch_is_listed_as_any_other(engine: Engine) -> None:
    await engine.append(KEY, batch_of([run_started()], create=SETTINGS))
    query = RunQuery(tenant=KEY.tenant, limit=10)
    query.filter.labels["team"] = "search"
    query.filter.states.append(RunState.RUN_STATE_RUNNING)
    assert [run.run_id for run in (await engine.list_runs(query)).runs] == ["run"]
    assert [listed.run.run_id for listed in (await engine.list_changes(query))[0]] == ["run"]


async def test_a_creating_batch_is_announced_with_its_events(engine: Engine) -> None:
    heard: list[Notice] = []
    changes: list[int] = []
    engine.watch(KEY, heard.append)
    engine.watch_changes(KEY.tenant, lambda: changes.append(1))
    await engine.append(KEY, batch_of(a_run_of(4), create=SETTINGS))
    (notice,) = heard
    assert (notice.last_sequence, notice.sealed, notice.chunk is not None) == (4, True, True)
    assert notice.chunk is not None
    assert len(EventBatch.FromString(notice.chunk.data).events) == 4
    assert changes


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
async def test_a_creating_batch_that_is_sent_again_is_a_duplicate(engine: Engine, together: bool) -> None:
    events = [run_started()]
    sent = [batch_of(events, create=SETTINGS) for _ in range(2)]
    if together:
        first, again = await asyncio.gather(*(engine.append(KEY, batch) for batch in sent))
    else:
        first, again = [await engine.append(KEY, batch) for batch in sent]
    assert (first.duplicate, again.duplicate) == (False, True)
    assert first.last_sequence == again.last_sequence == 1
    assert len(await stored(engine)) == 1


async def test_a_creating_batch_finds_the_run_that_exists(engine: Engine) -> None:
    await created(engine, run=Run(name="weather"))
    settings = RunSettings(name="weather", kind=RunKind.RUN_KIND_AGENT)
    await engine.append(KEY, batch_of([run_started()], create=settings))
    await engine.append(KEY, batch_of([custom()], first=2, create=settings))
    assert (await engine.get_run(KEY)).last_sequence == 2
    assert (await engine.create_run(KEY, Run(name="weather"))).state == RunState.RUN_STATE_RUNNING


async def test_a_creating_batch_with_other_settings_is_refused(engine: Engine) -> None:
    sent = [
        batch_of([run_started()], create=SETTINGS),
        batch_of([run_started()], create=RunSettings(name="other")),
        batch_of([custom()], first=2, create=RunSettings(name="other")),
    ]
    first, *others = [engine.append(KEY, batch) for batch in sent]
    assert (await first).last_sequence == 1
    for other in others:
        with refused("RUN_EXISTS") as caught:
            await other
        assert caught.value.metadata["run_id"] == "run"
    assert (await engine.get_run(KEY)).name == "weather"
    assert len(await stored(engine)) == 1


async def test_a_refused_batch_creates_no_run(engine: Engine) -> None:
    with refused("INVALID_FIELD"):
        await engine.append(KEY, batch_of([custom()], create=SETTINGS))
    with refused("PRODUCER_GAP") as caught:
        await engine.append(KEY, batch_of([custom()], first=7, create=SETTINGS))
    assert caught.value.detail == ProducerGap(expected_producer_sequence=1)
    assert await engine.find_run(KEY) is None
    with refused("RUN_NOT_FOUND"):
        await engine.append(KEY, batch_of([run_started()]))
    assert (await engine.append(KEY, batch_of([run_started()], create=RunSettings(name="new")))).last_sequence == 1
    assert (await engine.get_run(KEY)).name == "new"


async def test_batches_that_follow_a_creating_one_need_no_answer_first(engine: Engine) -> None:
    receipts = [engine.append(KEY, batch_of([run_started()], create=SETTINGS))]
    receipts += [engine.append(KEY, batch_of([custom()], first=number)) for number in range(2, 20)]
    assert [receipt.last_sequence for receipt in await asyncio.gather(*receipts)] == list(range(1, 20))
    assert len(await stored(engine)) == 19


async def test_an_empty_creating_batch_creates_an_empty_run(engine: Engine, clock: ManualClock) -> None:
    receipt = await engine.append(KEY, batch_of(create=SETTINGS))
    assert (receipt.last_producer_sequence, receipt.first_sequence, receipt.last_sequence) == (0, 0, 0)
    run = await engine.get_run(KEY)
    assert (run.state, run.last_sequence) == (RunState.RUN_STATE_QUEUED, 0)
    assert run.producer_seen_time.ToNanoseconds() == clock.time_ns()


async def test_silence_counts_from_the_batch_that_created_the_run(engine: Engine, clock: ManualClock) -> None:
    await engine.append(KEY, batch_of([run_started()], create=SETTINGS))
    clock.advance(59)
    assert not await engine.abandon_silent_runs(0)
    clock.advance(2)
    assert await engine.abandon_silent_runs(0) == [KEY]


async def test_a_run_can_be_created_again_after_its_deletion(engine: Engine) -> None:
    for number in (4, 6):
        receipt = await engine.append(KEY, batch_of(a_run_of(number), create=SETTINGS))
        assert (receipt.last_sequence, receipt.duplicate) == (number, False)
        assert len(await stored(engine)) == number
        await engine.delete_run(KEY)
