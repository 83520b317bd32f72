"""What is in the streams: records that show their damage, and nothing that is of no use any more."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from lavant.server.model import RunKey
from lavant.server.store.appending import SERVER, Appended, LogState, Producer, plan, plan_abandonment
from lavant.server.store.jetstream import Connection, JetStreamEngine, Location, Unanswered, feed
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.jetstream.records import Batch, Record, Stamps, encode, encode_deletion
from lavant.server.store.port import RunQuery
from lavant.server.store.runs import new_log
from lavant.v1.run_pb2 import Run
from support.calls import until
from support.clock import ManualClock
from support.engines import KEY, created, pending_cancel, refused, started, stored
from support.events import a_run_of, batch_of, text_delta

QUERY = RunQuery(tenant="acme", limit=100)
STAMPS = Stamps(7, 9)


def a_log() -> tuple[LogState, list[Batch]]:
    """A run that a producer has begun and the server has ended."""
    log = new_log(KEY, Run(name="weather", labels={"a": "b"}), 1_000)
    outcome = plan(log, batch_of(a_run_of(5, finished=False)), 2_000)
    assert isinstance(outcome, Appended)
    batches = [Batch(Producer("p", 0, 1), outcome.chunk)]
    return log, [*batches, Batch(SERVER, plan_abandonment(log, 3_000))]


async def kept(location: Location, key: RunKey = KEY) -> dict[str, int]:
    """How many messages there are of a run, by their kind."""
    subjects = location.run(key)
    connection = await Connection.open(location)
    answer = await connection.api(f"STREAM.INFO.{subjects.stream}", subjects_filter=subjects.all)
    await connection.close()
    return {subject.split(".")[-2]: number for subject, number in (answer["state"].get("subjects") or {}).items()}


def test_a_record_is_read_as_it_was_written() -> None:
    log, batches = a_log()
    record = Record(5, encode(KEY, STAMPS, log, batches))
    assert (record.sequence, record.key, record.stamps, record.deleted) == (5, KEY, STAMPS, False)
    assert (record.create_ns, record.first_sequence, record.last_sequence) == (1_000, 1, 6)
    assert record.run == log.run
    assert record.log.encode() == log.encode()
    assert [batch.producer for batch in record.batches] == [Producer("p", 0, 1), SERVER]
    assert [batch.chunk.encode() for batch in record.batches] == [batch.chunk.encode() for batch in batches]


def test_a_tombstone_holds_what_restrictions_depend_on_and_nothing_else() -> None:
    kept = Run(run_id=KEY.run_id, name="weather", labels={"team": "blue"}, conversation_id="c1")
    run = Run(parent_run_id="other", last_sequence=9)
    run.MergeFrom(kept)
    record = Record(5, encode_deletion(KEY, STAMPS, run))
    assert (record.key, record.deleted, record.stamps, record.run) == (KEY, True, STAMPS, kept)


def test_a_record_with_one_bit_changed_is_data_loss() -> None:
    data = encode(KEY, STAMPS, *a_log())
    for bit in Random(1).sample(range(8 * len(data)), 200):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with refused("DATA_LOSS"):
            Record(1, bytes(damaged))
    for size in (0, 3, 50, len(data) - 1):
        with refused("DATA_LOSS"):
            Record(1, data[:size])


async def test_a_damaged_message_is_reported_and_keeps_no_other_run_from_lists(
    replicas: Sequence[JetStreamEngine], location: Location, clock: ManualClock
) -> None:
    await started(replicas[0])
    await created(replicas[0], RunKey("acme", "other"))
    subjects = location.run(KEY)
    connection = await Connection.open(location)
    messages = Messages(connection)
    last = await messages.last(subjects.stream, subjects.all)
    assert last is not None
    await messages.publish(subjects.state, last.data[:-1] + b"\0", last.sequence, among=subjects.all)
    await connection.close()
    with refused("DATA_LOSS"):
        await replicas[0].get_run(KEY)
    with refused("DATA_LOSS"):
        await replicas[0].append(KEY, batch_of([text_delta()], first=3))
    with refused("DATA_LOSS"):
        await replicas[1].read(KEY, 0, 1 << 20)
    fresh = await JetStreamEngine.open(location, clock)
    assert {run.run_id for run in (await fresh.list_runs(QUERY)).runs} == {"run", "other"}
    await fresh.close()


async def test_signs_of_life_do_not_pile_up(
    replicas: Sequence[JetStreamEngine], location: Location, clock: ManualClock
) -> None:
    await started(replicas[0])
    for turn in range(10):
        clock.advance(1)
        await replicas[turn % 2].append(KEY, batch_of())
    await replicas[0].append(KEY, batch_of([text_delta()], first=3))
    clock.advance(1)
    await replicas[1].cancel_run(KEY, "enough")
    assert await kept(location) == {"s": 2, "e": 1, "h": 1}
    assert (await replicas[0].get_run(KEY)).producer_seen_time.ToNanoseconds() == clock.time_ns() - 1_000_000_000
    assert await pending_cancel(replicas[0], KEY) == "enough"
    assert [event.sequence for event in await stored(replicas[0])] == [1, 2, 3]


async def test_a_deleted_run_leaves_a_tombstone(replicas: Sequence[JetStreamEngine], location: Location) -> None:
    await created(replicas[0])
    await replicas[0].append(KEY, batch_of(a_run_of(4)))
    await replicas[0].delete_run(KEY)
    assert await kept(location) == {"s": 1}
    await created(replicas[1])
    assert (await replicas[0].get_run(KEY)).last_sequence == 0
    assert await stored(replicas[0]) == []


async def test_what_a_replica_left_when_it_died_while_deleting_is_cleared_away_by_others(
    replicas: Sequence[JetStreamEngine], location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replicas

    async def dies(*_arguments: Any) -> None:
        raise Unanswered("dead")

    await created(one)
    await one.append(KEY, batch_of(a_run_of(4)))
    monkeypatch.setattr(one._writer._commits._messages, "purge", dies)
    await one.delete_run(KEY)

    async def cleared() -> bool:
        return await kept(location) == {"s": 1}

    await until(cleared)
    await created(two)
    assert await stored(two) == []


async def test_a_replica_that_was_cut_off_for_long_reads_all_lists_again(
    replicas: Sequence[JetStreamEngine], location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(replicas[0])
    await created(replicas[0], RunKey("acme", "other"))

    async def names() -> list[str]:
        return [run.run_id for run in (await replicas[1].list_runs(QUERY)).runs]

    async def both_are_listed() -> bool:
        return await names() == ["other", "run"]

    async def one_is_listed() -> bool:
        return await names() == ["other"]

    await until(both_are_listed)
    subjects = location.run(KEY)
    connection = await Connection.open(location)
    await Messages(connection).purge(subjects.stream, subjects.all, 1 << 40)  # as if a tombstone had come and gone
    await connection.close()
    replicas[1]._look_around()
    assert await names() == ["other", "run"]
    monkeypatch.setattr(feed, "CUT_OFF_LIMIT", 0.0)
    await until(one_is_listed)


async def test_many_runs_are_listed_after_a_restart(location: Location, clock: ManualClock) -> None:
    first = await JetStreamEngine.open(location, clock)
    keys = [RunKey("acme", f"{number:03}") for number in range(300)]
    for key in keys:
        await created(first, key)
    await asyncio.gather(*(first.append(key, batch_of(a_run_of(4))) for key in keys[::2]))
    listed, changes = await first.list_runs(QUERY), await first.list_changes(QUERY)
    await first.close()
    second = await JetStreamEngine.open(location, clock)
    assert await second.list_runs(QUERY) == listed
    assert await second.list_changes(QUERY) == changes
    await second.close()
