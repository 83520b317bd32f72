"""Runs, put through every engine: creation, cancelling, deletion, abandonment, the announcement of changes."""

import asyncio

import pytest

from lavant.server.model import RunKey
from lavant.server.store.port import Engine, Notice
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run, RunKind, RunState
from support.calls import until
from support.clock import ManualClock
from support.engines import KEY, created, pending_cancel, refused, started, stored, watch_changes_of
from support.events import a_run_of, batch_of, run_finished, text_delta


def with_timeout(seconds: int) -> Run:
    run = Run(name="weather")
    run.producer_timeout.seconds = seconds
    return run


async def test_a_created_run_is_queued(engine: Engine, clock: ManualClock) -> None:
    settings = Run(name="weather", kind=RunKind.RUN_KIND_EVALUATION, labels={"a": "b"}, conversation_id="c")
    run = await engine.create_run(KEY, settings)
    assert run == await engine.get_run(KEY)
    assert (run.run_id, run.state, run.last_sequence) == ("run", RunState.RUN_STATE_QUEUED, 0)
    assert (run.name, run.kind, dict(run.labels), run.conversation_id) == ("weather", 2, {"a": "b"}, "c")
    assert run.create_time.ToNanoseconds() == clock.time_ns()
    assert not run.HasField("update_time")


async def test_the_same_creation_gets_the_same_run(engine: Engine) -> None:
    settings = with_timeout(60)
    first, second = await asyncio.gather(engine.create_run(KEY, settings), engine.create_run(KEY, settings))
    assert first == second == await engine.create_run(KEY, settings)
    await engine.append(KEY, batch_of(a_run_of(4)))
    assert (await engine.create_run(KEY, settings)).state == RunState.RUN_STATE_SUCCEEDED


@pytest.mark.parametrize(
    "other",
    [
        Run(name="other"),
        Run(name="weather", kind=RunKind.RUN_KIND_EVALUATION),
        Run(name="weather", labels={"a": "b"}),
        Run(name="weather", parent_run_id="p"),
        Run(name="weather", conversation_id="c"),
        with_timeout(60),
    ],
    ids=["name", "kind", "labels", "parent", "conversation", "timeout"],
)
async def test_other_settings_are_another_run(engine: Engine, other: Run) -> None:
    await created(engine)
    with refused("RUN_EXISTS") as caught:
        await engine.create_run(KEY, other)
    assert caught.value.metadata["run_id"] == "run"


async def test_missing_run_is_not_found(engine: Engine) -> None:
    await created(engine)
    key = RunKey("other", "run")
    for call in (engine.get_run(key), engine.delete_run(key), engine.cancel_run(key, "x")):
        with refused("RUN_NOT_FOUND"):
            await call
    assert await engine.find_run(key) is None
    assert await engine.find_run(KEY) == await engine.get_run(KEY)


async def test_the_first_reason_to_cancel_stays_until_the_end(engine: Engine) -> None:
    await started(engine)
    assert await pending_cancel(engine, KEY) is None
    assert (await engine.cancel_run(KEY, "too slow")).state == RunState.RUN_STATE_RUNNING
    await engine.cancel_run(KEY, "too dear")
    assert await pending_cancel(engine, KEY) == "too slow"
    await engine.append(KEY, batch_of([run_finished(RunState.RUN_STATE_CANCELLED)], first=3))
    assert await pending_cancel(engine, KEY) is None
    assert (await engine.cancel_run(KEY, "again")).state == RunState.RUN_STATE_CANCELLED


async def test_only_ended_runs_are_deleted(engine: Engine) -> None:
    await started(engine)
    with refused("RUN_NOT_ENDED"):
        await engine.delete_run(KEY)
    await engine.append(KEY, batch_of([run_finished()], first=3))
    await engine.delete_run(KEY)
    with refused("RUN_NOT_FOUND"):
        await engine.get_run(KEY)
    with refused("RUN_NOT_FOUND"):
        await engine.read(KEY, 0, 1)
    with refused("RUN_NOT_FOUND"):
        await engine.append(KEY, batch_of([text_delta()], first=4))


async def test_a_deleted_run_leaves_nothing_to_the_next_of_its_name(engine: Engine) -> None:
    await created(engine)
    await engine.append(KEY, batch_of(a_run_of(9)))
    deletion = asyncio.ensure_future(engine.delete_run(KEY))
    await asyncio.sleep(0)
    await created(engine, run=Run(name="other"))
    await deletion
    assert await stored(engine) == []
    await engine.append(KEY, batch_of(a_run_of(4)))
    assert len(await stored(engine)) == 4


async def test_watchers_hear_of_each_change(engine: Engine, clock: ManualClock) -> None:
    received: list[Notice] = []
    watch = engine.watch(KEY, received.append)
    await asyncio.sleep(0)  # there is no snapshot of a run that does not exist
    await started(engine)
    clock.advance(1)
    await engine.append(KEY, batch_of())
    await engine.cancel_run(KEY, "enough")
    await engine.append(KEY, batch_of([run_finished()], first=3))
    await engine.delete_run(KEY)
    watch.close()
    watch.close()
    await created(engine)
    assert [notice.last_sequence for notice in received] == [0, 2, 2, 2, 3, 3]
    assert [notice.sealed for notice in received] == [False, False, False, False, True, True]
    assert [notice.cancel_reason for notice in received] == [None, None, None, "enough", None, None]
    assert [notice.deleted for notice in received] == [False] * 5 + [True]
    assert [notice.producer_seen_ns for notice in received] == [
        0,
        clock.time_ns() - 1_000_000_000,
        *[clock.time_ns()] * 4,
    ]


async def test_watchers_hear_in_order_after_durability_and_before_the_receipt(engine: Engine) -> None:
    await started(engine)
    order: list[tuple[str, int]] = []
    reads: list[asyncio.Task[list[int]]] = []

    async def durable() -> list[int]:
        return [event.sequence for event in await stored(engine)]

    def received(notice: Notice) -> None:
        order.append(("notice", notice.last_sequence))
        reads.append(asyncio.ensure_future(durable()))

    async def append(number: int) -> None:
        receipt = await engine.append(KEY, batch_of([text_delta()], first=number))
        order.append(("receipt", receipt.last_sequence))

    await watch_changes_of(engine, KEY, received)
    await asyncio.gather(*(append(number) for number in range(3, 53)))
    for kind in ("notice", "receipt"):
        assert [number for what, number in order if what == kind] == list(range(3, 53))
    assert all(order.index(("notice", number)) < order.index(("receipt", number)) for number in range(3, 53))
    for number, read in enumerate(reads, 3):
        assert (await read)[:number] == list(range(1, number + 1))


async def test_a_notice_may_carry_the_events(engine: Engine) -> None:
    received: list[Notice] = []
    engine.watch(KEY, received.append)
    await started(engine)
    chunks = [notice.chunk for notice in received if notice.chunk]
    assert [event.sequence for chunk in chunks for event in EventBatch.FromString(chunk.data).events] in ([1, 2], [])


async def test_a_watch_may_be_closed_by_another_while_both_are_called(engine: Engine) -> None:
    received: list[str] = []

    def first(_notice: Notice) -> None:
        received.append("first")
        for watch in watches:
            watch.close()

    watches = [engine.watch(KEY, first), engine.watch(KEY, lambda _notice: received.append("second"))]
    await asyncio.sleep(0)
    await started(engine)
    assert received == ["first"]


async def test_watch_starts_with_snapshot_for_each_watcher(engine: Engine) -> None:
    await started(engine)
    await engine.cancel_run(KEY, "enough")
    snapshots: list[Notice] = []
    for number in (1, 2, 3):
        engine.watch(KEY, snapshots.append)
        await until(lambda number=number: len(snapshots) == number)  # type: ignore[misc]
    assert {(notice.last_sequence, notice.sealed, notice.cancel_reason) for notice in snapshots} == {
        (2, False, "enough")
    }
    await engine.append(KEY, batch_of([run_finished()], first=3))
    assert [notice.sealed for notice in snapshots] == [False] * 3 + [True] * 3
    engine.watch(KEY, snapshots.append)
    await until(lambda: len(snapshots) == 7)
    assert (snapshots[-1].sealed, snapshots[-1].cancel_reason) == (True, None)


async def test_closed_watch_gets_no_snapshot(engine: Engine) -> None:
    await started(engine)
    received: list[Notice] = []
    engine.watch(KEY, received.append).close()
    await watch_changes_of(engine, KEY, lambda _: None)
    assert received == []


async def test_silent_runs_are_abandoned_once(engine: Engine, clock: ManualClock) -> None:
    silent, talking, patient, endless = (RunKey("acme", name) for name in ("silent", "talking", "patient", "endless"))
    for key, timeout in ((silent, 10), (talking, 10), (patient, 60)):
        await started(engine, key, with_timeout(timeout))
    await started(engine, endless)
    clock.advance(9)
    await engine.append(talking, batch_of())
    clock.advance(2)
    received: list[Notice] = []
    await watch_changes_of(engine, silent, received.append)
    assert list(await engine.abandon_silent_runs(0)) == [silent]
    assert list(await engine.abandon_silent_runs(0)) == []
    assert [notice.sealed for notice in received] == [True]
    run = await engine.get_run(silent)
    assert (run.state, run.last_sequence) == (RunState.RUN_STATE_ABANDONED, 3)
    assert run.result.error.type == "producer_silent"
    assert run.producer_seen_time.ToNanoseconds() == clock.time_ns() - 11_000_000_000
    last = (await stored(engine, silent))[-1]
    assert (last.event_id, last.run_finished) == ("server.3", run.result)
    with refused("RUN_SEALED"):
        await engine.append(silent, batch_of([text_delta()], first=3))


async def test_a_run_that_never_started_is_abandoned_with_a_whole_log(engine: Engine, clock: ManualClock) -> None:
    await created(engine, run=with_timeout(10))
    clock.advance(10)
    assert list(await engine.abandon_silent_runs(0)) == []
    clock.advance(0.001)
    assert list(await engine.abandon_silent_runs(0)) == [KEY]
    events = await stored(engine)
    assert [event.WhichOneof("payload") for event in events] == ["run_started", "run_finished"]


async def test_silence_counts_from_when_batches_could_arrive(engine: Engine, clock: ManualClock) -> None:
    await started(engine, run=with_timeout(10))
    clock.advance(100)
    assert list(await engine.abandon_silent_runs(clock.time_ns())) == []
    assert list(await engine.abandon_silent_runs(clock.time_ns() - 11_000_000_000)) == [KEY]


async def test_nothing_is_taken_once_the_store_is_closed(engine: Engine) -> None:
    await started(engine)
    last = engine.append(KEY, batch_of([text_delta()], first=3))
    await engine.close()
    assert (await last).last_sequence == 3
    with refused("UNAVAILABLE"):
        await engine.append(KEY, batch_of([text_delta()], first=4))
    with refused("UNAVAILABLE"):
        await engine.read(KEY, 0, 1)
    with refused("UNAVAILABLE"):
        await engine.create_run(RunKey("acme", "late"), Run(name="late"))
    await engine.close()
