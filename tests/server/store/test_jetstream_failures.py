"""NATS servers that die, stand still, or are full."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from lavant.server.clock import SystemClock
from lavant.server.errors import ServiceError
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.jetstream import (
    Connection,
    JetStreamEngine,
    Limits,
    Location,
    Unanswered,
    writer,
)
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.port import Engine, Holder, Notice, RunQuery
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt
from lavant.v1.run_pb2 import Run, RunSettings
from support.calls import until
from support.clock import ManualClock
from support.engines import KEY, bare, created, refused, started, stored
from support.events import (
    a_run_of,
    batch_of,
    custom,
    message_finished,
    message_started,
    run_finished,
    run_started,
    text_delta,
)
from support.nats import NatsServer, examined, fresh_location, nats_cluster

WRITERS = 4
QUERY = RunQuery(tenant="acme", limit=100)


@pytest.fixture
async def engine(own_nats: NatsServer) -> AsyncIterator[JetStreamEngine]:
    engine = await JetStreamEngine.open(fresh_location([own_nats]), SystemClock())
    yield engine
    await engine.close()


class Writing:
    """Producers that append to runs of their own, and send again what may not have been stored."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stopping = False
        self.acked: dict[RunKey, list[tuple[Event, BatchReceipt]]] = {}

    async def write(self, key: RunKey) -> None:
        acked = self.acked[key] = []
        await self._again(lambda: self.engine.create_run(key, Run(name="weather")))
        await self._again(lambda: self.engine.append(key, batch_of([run_started()])))
        while not self.stopping:
            event = custom()
            number = len(acked) + 2
            receipt = await self._again(lambda: self.engine.append(key, batch_of([event], first=number)))  # noqa: B023
            acked.append((event, receipt))

    async def check(self, engine: Engine) -> None:
        """Everything acknowledged is there, once and where the receipt says; and nothing else."""
        for key, acked in self.acked.items():
            log = await stored(engine, key)
            assert [event.sequence for event in log] == list(range(1, len(log) + 1))
            assert bare(log[1:]) == [event for event, _ in acked]
            assert [receipt.last_sequence for _, receipt in acked] == list(range(2, len(log) + 1))

    async def _again(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await attempt()
            except ServiceError as error:
                if error.reason != ErrorReason.ERROR_REASON_UNAVAILABLE:
                    raise


async def written(writing: Writing, number: int) -> None:
    """Wait until each producer has got so many receipts more."""
    wanted = {key: len(acked) + number for key, acked in writing.acked.items()}
    await until(lambda: all(len(writing.acked[key]) >= count for key, count in wanted.items()))


async def test_a_server_killed_under_appends_loses_nothing_acknowledged(
    engine: JetStreamEngine, own_nats: NatsServer
) -> None:
    writing = Writing(engine)
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(writing.write(RunKey("acme", str(number))))
        await until(lambda: len(writing.acked) == WRITERS)
        for _ in range(3):
            await written(writing, 10)
            own_nats.kill()
            own_nats.start()
        await written(writing, 10)
        writing.stopping = True
    await writing.check(engine)


@pytest.mark.timeout(180)
async def test_a_cluster_outlives_the_death_of_any_server(tmp_path: Path) -> None:
    with nats_cluster(tmp_path) as servers:
        location = fresh_location(servers)
        engine = await opened(location)
        assert await examined(location) == []
        writing = Writing(engine)
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(writing.write(RunKey("acme", str(number))))
            await until(lambda: len(writing.acked) == WRITERS)
            for server in servers:
                await written(writing, 10)
                server.kill()
                await written(writing, 3)
                server.start()
                await asyncio.to_thread(server.wait)
            await written(writing, 3)
            writing.stopping = True
        await writing.check(engine)
        other = await opened(location)
        await writing.check(other)
        await other.close()
        await engine.close()


async def opened(location: Location) -> JetStreamEngine:
    """Open a store whose cluster may still be electing."""
    engine: JetStreamEngine | None = None

    async def ready() -> bool:
        nonlocal engine
        try:
            engine = await JetStreamEngine.open(location, SystemClock())
        except Exception:
            return False
        return True

    await until(ready)
    assert engine is not None
    return engine


@pytest.fixture
def answers_lost(engine: JetStreamEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages of runs, and every other one of leases, are stored and go unanswered; names their subjects."""
    lost: list[str] = []
    calls = count()

    async def publish(self: Messages, subject: str, *arguments: Any, **more: Any) -> int:
        sequence = await real(self, subject, *arguments, **more)
        if ".log." in subject or next(calls) % 2 == 0:
            lost.append(subject)
            raise Unanswered("the answer was lost")
        return sequence

    real = Messages.publish
    monkeypatch.setattr(Messages, "publish", publish)
    return lost


async def test_an_unknown_outcome_is_resolved_by_looking(engine: JetStreamEngine, answers_lost: list[str]) -> None:
    heard: list[Notice] = []
    engine.watch(KEY, heard.append)
    run = await engine.create_run(KEY, Run(name="weather"))
    assert run == await engine.get_run(KEY)
    assert [listed.run_id for listed in (await engine.list_runs(QUERY)).runs] == ["run"]
    first = await engine.append(KEY, batch_of([run_started(), message_started()]))
    second = await engine.append(KEY, batch_of([text_delta(), text_delta()], first=3))
    last = await engine.append(KEY, batch_of([message_finished(), run_finished()], first=5))
    await engine.delete_run(KEY)
    with refused("RUN_NOT_FOUND"):
        await engine.get_run(KEY)
    assert len(answers_lost) == 5
    receipts = [(receipt.first_sequence, receipt.last_sequence, receipt.duplicate) for receipt in (first, second, last)]
    assert receipts == [(1, 2, False), (3, 4, False), (5, 6, False)]
    told = [(notice.last_sequence, notice.sealed) for notice in heard[:-1]]
    assert told == [(0, False), (2, False), (4, False), (6, True)]
    assert heard[-1].deleted


async def test_an_unknown_outcome_of_a_creating_batch_is_resolved_by_looking(
    engine: JetStreamEngine, answers_lost: list[str]
) -> None:
    receipt = await engine.append(KEY, batch_of([run_started()], create=RunSettings(name="weather")))
    assert (receipt.last_sequence, receipt.duplicate) == (1, False)
    assert len(answers_lost) == 1
    assert len(await stored(engine)) == 1


async def test_an_answer_that_comes_too_late_changes_nothing(engine: JetStreamEngine, own_nats: NatsServer) -> None:
    await started(engine)
    waiting = engine._connection._waiting
    own_nats.pause()
    append = engine.append(KEY, batch_of([text_delta()], first=3))
    await until(lambda: bool(waiting))
    asked = set(waiting)
    await until(lambda: not asked & set(waiting))
    own_nats.go_on()
    assert (await append).last_sequence == 3
    assert len(await stored(engine)) == 3


async def test_a_lease_of_unknown_outcome_is_held_if_it_was_taken(
    engine: JetStreamEngine, answers_lost: list[str]
) -> None:
    place, holder = ConsumerKey(KEY, "ui"), Holder(session_id="one", attempt=1)
    lost: list[int] = []
    lease = await engine.leases.acquire(place, holder, lambda: lost.append(1))
    renewed = await engine.leases.renew(lease)
    assert renewed is not None
    assert renewed.fence == lease.fence
    assert lost == []
    assert len(answers_lost) == 2
    with refused("STALE_ATTEMPT"):
        await engine.leases.acquire(place, holder, lambda: None)


async def test_while_nats_is_out_of_reach_calls_say_so_and_then_work_again(
    engine: JetStreamEngine, own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TRY_LIMIT", 0.2)
    await started(engine)
    own_nats.kill()
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: engine.append(KEY, batch_of([text_delta()], first=3)),
        lambda: engine.get_run(KEY),
        lambda: engine.read(KEY, 0, 1),
        lambda: engine.create_run(RunKey("acme", "new"), Run(name="new")),
    ]
    for call in calls:
        with refused("UNAVAILABLE"):
            await call()
    own_nats.start()

    async def works() -> bool:
        try:
            return (await engine.append(KEY, batch_of([text_delta()], first=3))).last_sequence == 3
        except ServiceError:
            return False

    await until(works)
    assert len(await stored(engine)) == 3


async def test_nobody_counts_as_silent_while_nats_is_out_of_reach(
    own_nats: NatsServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TRY_LIMIT", 0.2)
    engine = await JetStreamEngine.open(fresh_location([own_nats]), clock)
    run = Run(name="weather")
    run.producer_timeout.seconds = 10
    await started(engine, run=run)
    own_nats.kill()
    clock.advance(20)
    with refused("UNAVAILABLE"):
        await engine.abandon_silent_runs(0)
    own_nats.start()

    async def in_reach() -> bool:
        try:
            await engine.get_run(KEY)
        except ServiceError:
            return False
        return True

    await until(in_reach)
    assert await engine.abandon_silent_runs(0) == []
    clock.advance(11)
    assert await engine.abandon_silent_runs(0) == [KEY]
    await engine.close()


async def test_a_full_store_refuses_appends_goes_on_reading_and_recovers(own_nats: NatsServer) -> None:
    location = fresh_location([own_nats])
    engine = await JetStreamEngine.open(location, SystemClock(), limits=Limits(max_bytes=8 << 20))
    names = (RunKey("acme", str(number)) for number in count())
    done, key = islice((key for key in names if location.run(key).partition == 0), 2)
    await created(engine, done)
    await engine.append(done, batch_of(a_run_of(30)))
    await started(engine, key)
    await fill(location)
    with refused("QUOTA_EXCEEDED"):
        await engine.append(key, batch_of([text_delta()], first=3))
    assert len(await stored(engine, key)) == 2
    await engine.delete_run(done)
    with refused("RUN_NOT_FOUND"):
        await engine.get_run(done)
    assert (await engine.append(key, batch_of([text_delta()], first=3))).last_sequence == 3
    await engine.close()


async def fill(location: Location) -> None:
    """Take all the room of the first log, up to the last byte that a message can take."""
    connection = await Connection.open(location)
    messages, subject = Messages(connection), f"{location.name}.log.0.e.filler"
    size, last = 100_000, 0
    while size:
        try:
            last = await messages.publish(subject, b"x" * size, last)
        except ServiceError:
            size //= 2
    await connection.close()
