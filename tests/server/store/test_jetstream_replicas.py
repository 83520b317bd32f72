"""Two engines on one NATS, as two servers that share a store: what each does, and what it learns of the other."""

import asyncio
from collections.abc import Sequence

import pytest

from lavant.server.model import RunKey
from lavant.server.store.jetstream import JetStreamEngine, Location
from lavant.server.store.jetstream.reader import Reader
from lavant.server.store.jetstream.records import Record
from lavant.server.store.port import Engine, Notice, RunQuery
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, EventBatch
from lavant.v1.run_pb2 import Run, RunState
from support.calls import until
from support.clock import ManualClock
from support.engines import KEY, bare, created, refused, started, stored
from support.events import a_run_of, batch_of, custom, run_finished, run_started, text_delta

QUERY = RunQuery(tenant="acme", limit=100)


Done = list[tuple[list[Event], BatchReceipt]]


async def append_all(engine: Engine, producer: str, count: int, size: int = 1) -> Done:
    """Append so many batches one after the other, and return what each held and got."""
    done = []
    for number in range(count):
        events = [custom() for _ in range(size)]
        batch = batch_of(events, first=number * size + 1, producer_id=producer)
        done.append((events, await engine.append(KEY, batch)))
    return done


async def test_replicas_are_one_store(replicas: Sequence[JetStreamEngine]) -> None:
    one, two = replicas
    assert one.identity == two.identity
    assert [len(key.secret) for key in one.identity.keys] == [32]
    await created(one)
    assert (await two.get_run(KEY)).name == "weather"
    with refused("RUN_EXISTS"):
        await two.create_run(KEY, Run(name="other"))


async def test_replicas_that_start_at_once_make_one_store(location: Location, clock: ManualClock) -> None:
    engines = await asyncio.gather(*(JetStreamEngine.open(location, clock) for _ in range(4)))
    assert len({engine.identity for engine in engines}) == 1
    for engine in engines:
        await engine.close()


async def test_one_creation_of_many_at_once_counts(replicas: Sequence[JetStreamEngine]) -> None:
    for number in range(20):
        key = RunKey("acme", str(number))
        names = [Run(name=f"name-{index}") for index in range(4)]
        attempts = [replicas[index % 2].create_run(key, name) for index, name in enumerate(names)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Run)]
        assert await replicas[0].get_run(key) == winner


async def test_appends_to_one_run_through_both_are_all_stored_once(replicas: Sequence[JetStreamEngine]) -> None:
    await created(replicas[0])
    await replicas[0].append(KEY, batch_of([run_started()], producer_id="s"))
    work = [append_all(replicas[index % 2], f"p{index}", 40, index + 1) for index in range(4)]
    done = [pair for pairs in await asyncio.gather(*work) for pair in pairs]
    log = await stored(replicas[1])
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    assert len(log) == 1 + 40 * (1 + 2 + 3 + 4)
    for events, receipt in done:
        assert not receipt.duplicate
        assert bare(log[receipt.first_sequence - 1 : receipt.last_sequence]) == events


async def test_a_batch_sent_through_both_at_once_is_stored_once(replicas: Sequence[JetStreamEngine]) -> None:
    await started(replicas[0])
    for number in range(3, 40):
        events = [text_delta()]
        sent = [replica.append(KEY, batch_of(events, first=number)) for replica in replicas]
        receipts = await asyncio.gather(*sent)
        assert {receipt.last_sequence for receipt in receipts} == {number}
        assert sorted(receipt.duplicate for receipt in receipts) == [False, True]
    assert len(await stored(replicas[1])) == 39


async def test_a_refusal_is_never_decided_on_what_was_true_before(replicas: Sequence[JetStreamEngine]) -> None:
    one, two = replicas
    await started(one)
    await two.append(KEY, batch_of([text_delta()], first=3))
    assert (await one.append(KEY, batch_of([text_delta()], first=4))).last_sequence == 4
    assert (await two.append(KEY, batch_of())).last_producer_sequence == 4
    await one.append(KEY, batch_of([run_finished()], first=5))
    await one.delete_run(KEY)
    await created(one)
    assert (await two.append(KEY, batch_of([run_started()]))).last_sequence == 1


async def test_old_batches_are_found_by_a_replica_that_has_not_seen_them(
    replicas: Sequence[JetStreamEngine],
) -> None:
    one, two = replicas
    await created(one)
    await one.append(KEY, batch_of([run_started()], producer_id="s"))
    (done, others) = await asyncio.gather(append_all(one, "p", 60, 2), append_all(one, "q", 60))
    for number in (0, 1, 29, 58, 59):
        events, receipt = done[number]
        again = await two.append(KEY, batch_of(events, first=2 * number + 1))
        assert again.duplicate
        assert again.first_sequence == receipt.first_sequence
    with refused("PRODUCER_CONFLICT"):
        await two.append(KEY, batch_of([custom()], first=3, producer_id="q"))
    assert len(others) == 60


async def test_any_position_is_found_by_a_replica_that_has_not_read(
    replicas: Sequence[JetStreamEngine], location: Location, clock: ManualClock
) -> None:
    others = [RunKey("acme", f"other-{number}") for number in range(16)]
    await asyncio.gather(*(started(replicas[0], key) for key in (KEY, *others)))
    for number in range(3, 103):
        busy = (KEY, *(key for index, key in enumerate(others) if number <= 6 * index + 3))
        await asyncio.gather(*(replicas[0].append(key, batch_of([text_delta()], first=number)) for key in busy))
    fresh = await JetStreamEngine.open(location, clock)
    for after in reversed(range(2, 102)):  # from behind, so that none is found by the one before
        assert (await fresh.read(KEY, after, 1))[0].first_sequence == after + 1
    assert await fresh.read(KEY, 102, 1) == []
    await fresh.close()


async def test_watchers_hear_of_what_another_replica_has_stored(replicas: Sequence[JetStreamEngine]) -> None:
    one, two = replicas
    heard: list[Notice] = []
    watch = two.watch(KEY, heard.append)
    await started(one)
    await until(lambda: bool(heard))  # a watch that starts after the end has no cancel request to report
    await one.append(KEY, batch_of([text_delta("x" * 200_000)], first=3))
    await one.cancel_run(KEY, "enough")
    await one.append(KEY, batch_of([run_finished()], first=4))
    await one.delete_run(KEY)
    await until(lambda: bool(heard) and heard[-1].deleted)
    watch.close()
    assert [notice.last_sequence for notice in heard[:-1]] == sorted(notice.last_sequence for notice in heard[:-1])
    assert any(notice.cancel_reason == "enough" for notice in heard)
    assert heard[-2].sealed
    told = [
        event.sequence for notice in heard if notice.chunk for event in EventBatch.FromString(notice.chunk.data).events
    ]
    assert told == sorted(set(told))


async def test_watchers_hear_of_a_run_that_took_the_place_of_a_deleted_one(
    replicas: Sequence[JetStreamEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replicas
    heard: list[Notice] = []
    two.watch(KEY, heard.append)
    await created(one)
    await one.append(KEY, batch_of(a_run_of(4)))
    await until(lambda: bool(heard) and heard[-1].sealed)
    with monkeypatch.context() as patch:
        patch.setattr(one._connection, "notify", _lost)
        await one.delete_run(KEY)
        await created(one)
    await one.append(KEY, batch_of([run_started()]))
    await until(lambda: heard[-1].last_sequence == 1 and not heard[-1].sealed)
    assert [notice.deleted for notice in heard][-2:] == [True, False]
    await one.append(KEY, batch_of([run_finished()], first=2))
    await one.delete_run(KEY)
    await until(lambda: heard[-1].deleted)
    await created(one)
    await until(lambda: not heard[-1].deleted)
    assert [notice.deleted for notice in heard].count(True) == 2


async def _lost(_subject: str, _payload: bytes) -> None:
    """A message that gets lost."""


async def test_a_change_without_a_notice_is_found_by_polling(
    replicas: Sequence[JetStreamEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replicas
    monkeypatch.setattr(one._connection, "notify", _lost)
    heard: list[Notice] = []
    changes: list[int] = []
    two.watch(KEY, heard.append)
    two.watch_changes("acme", lambda: changes.append(1))
    await created(one)
    await one.append(KEY, batch_of(a_run_of(4)))
    await until(lambda: bool(heard) and heard[-1].sealed and bool(changes))
    listed = await two.list_runs(QUERY)
    assert [run.state for run in listed.runs] == [RunState.RUN_STATE_SUCCEEDED]


async def test_lists_and_their_positions_mean_the_same_on_every_replica(
    replicas: Sequence[JetStreamEngine], location: Location, clock: ManualClock
) -> None:
    one, two = replicas
    for number in range(40):
        await created(replicas[number % 2], RunKey("acme", f"{number:02}"))
    for number in range(0, 40, 3):
        await replicas[number % 2].append(RunKey("acme", f"{number:02}"), batch_of([run_started()]))
    third = await JetStreamEngine.open(location, clock)
    everywhere = (one, two, third)

    async def same() -> bool:
        told = [await engine.list_changes(QUERY) for engine in everywhere]
        return told[0] == told[1] == told[2] and len(told[0][0]) == 40

    await until(same)
    found: list[str] = []
    position = 0
    for turn in range(99):
        changes, position = await everywhere[turn % 3].list_changes(RunQuery(tenant="acme", limit=3), position)
        if not changes:
            break
        found += [change.run.run_id for change in changes]
    assert sorted(found) == [f"{number:02}" for number in range(40)]
    assert len((await third.list_runs(QUERY)).runs) == 40
    pages = [await engine.list_runs(QUERY) for engine in everywhere]
    assert pages[0] == pages[1] == pages[2]
    await third.close()


async def test_a_deleted_run_leaves_the_lists_of_all(replicas: Sequence[JetStreamEngine]) -> None:
    one, two = replicas
    await created(one)
    await one.append(KEY, batch_of(a_run_of(4)))
    await two.delete_run(KEY)
    assert (await two.list_runs(QUERY)).runs == []

    async def gone() -> bool:
        return not (await one.list_runs(QUERY)).runs

    await until(gone)
    with refused("RUN_NOT_FOUND"):
        await one.read(KEY, 0, 1)


async def test_a_silent_run_is_ended_by_one_replica_once(
    replicas: Sequence[JetStreamEngine], clock: ManualClock
) -> None:
    run = Run(name="weather")
    run.producer_timeout.seconds = 10
    keys = [RunKey("acme", str(number)) for number in range(30)]
    for number, key in enumerate(keys):
        await started(replicas[number % 2], key, run)
    await replicas[1].append(keys[0], batch_of())

    async def listed() -> bool:
        return all([len((await replica.list_runs(QUERY)).runs) == 30 for replica in replicas])

    await until(listed)
    clock.advance(11)
    await replicas[0].append(keys[0], batch_of())
    ended = await asyncio.gather(*(replica.abandon_silent_runs(0) for replica in replicas))
    assert sorted([*ended[0], *ended[1]]) == sorted(keys[1:])
    for key in keys[1:]:
        assert [event.WhichOneof("payload") for event in await stored(replicas[0], key)].count("run_finished") == 1


@pytest.mark.parametrize("again", [False, True])
async def test_a_run_deleted_while_it_is_read_is_not_found(
    replicas: Sequence[JetStreamEngine], monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    one, two = replicas
    await created(one)
    batches = [batch_of([run_started()]), batch_of([custom()], first=2), batch_of([run_finished()], first=3)]
    for batch in batches:
        await one.append(KEY, batch)
    last = Reader.last

    async def last_before_deletion(reader: Reader, key: RunKey) -> Record:
        record = await last(reader, key)
        monkeypatch.setattr(Reader, "last", last)
        await one.delete_run(KEY)
        if again:
            await started(one)
        return record

    monkeypatch.setattr(Reader, "last", last_before_deletion)
    with refused("RUN_NOT_FOUND"):
        await two.read(KEY, 1, 1 << 20)
    if again:
        await one.append(KEY, batch_of([run_finished()], first=3))
    else:
        await created(one)
        for batch in (batch_of([run_started()]), batch_of([custom()], first=2), batch_of([run_finished()], first=3)):
            await one.append(KEY, batch)
    monkeypatch.setattr(Reader, "last", last_before_deletion)
    with refused("RUN_NOT_FOUND"):
        await two.append(KEY, batch_of([custom()], first=2))
