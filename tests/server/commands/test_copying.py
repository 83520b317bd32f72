"""A store in a file becomes one on NATS, with all that the file holds."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.server.auth.signing import Signer
from lavant.server.commands.copying import Copied, copy
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.jetstream import Connection, JetStreamEngine, Limits, Location, StoreUnusable
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.port import Holder, RunQuery, StoreIdentity
from lavant.server.store.sqlite import SQLiteEngine, StoreDamaged, StoreLocked
from lavant.server.streaming.tokens import ResumeTokens
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run
from support.clock import ManualClock
from support.engines import created, pending_cancel, refused, started, stored
from support.events import batch_of, custom, run_finished

LIMITS = Limits(replicas=1)
LARGE = f'"{"x" * 200_000}"'
ENDED, LONG, WAITING, SILENT, UNTOUCHED, OTHERS = (
    RunKey("acme", "ended"),
    RunKey("acme", "long"),
    RunKey("acme", "waiting"),
    RunKey("acme", "silent"),
    RunKey("acme", "untouched"),
    RunKey("umbrella", "ended"),
)
KEYS = (ENDED, LONG, WAITING, SILENT, UNTOUCHED, OTHERS)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a store holds."""

    identity: StoreIdentity
    runs: dict[RunKey, Run]
    events: dict[RunKey, list[Event]]
    cancelled: str | None
    lists: list[list[str]]
    changes: list[str]


async def held(engine: SQLiteEngine | JetStreamEngine) -> Held:
    return Held(
        identity=engine.identity,
        runs={key: await engine.get_run(key) for key in KEYS},
        events={key: await stored(engine, key) for key in KEYS},
        cancelled=await pending_cancel(engine, WAITING),
        lists=[
            [run.run_id for run in (await engine.list_runs(RunQuery(tenant=tenant, limit=100))).runs]
            for tenant in ("acme", "umbrella")
        ],
        changes=[change.run.run_id for change in (await engine.list_changes(RunQuery(tenant="acme", limit=100)))[0]],
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lavant.db"


@pytest.fixture
async def original(path: Path, clock: ManualClock) -> Held:
    """A store with runs of every kind, closed."""
    engine = await SQLiteEngine.open(path, clock)
    for key in (ENDED, OTHERS):
        await started(engine, key, Run(name="weather", labels={"team": key.tenant}))
        clock.advance(1)
        await engine.append(key, batch_of([custom(), run_finished()], first=3))
    await started(engine, LONG)
    for number in range(3, 13):
        await engine.append(LONG, batch_of([custom(value_json=LARGE)], first=number))
    await started(engine, WAITING)
    await engine.cancel_run(WAITING, "too slow")
    await started(engine, SILENT, Run(name="weather", producer_timeout=Duration(seconds=5)))
    await created(engine, UNTOUCHED)
    clock.advance(10)
    assert await engine.abandon_silent_runs(0) == [SILENT]
    found = await held(engine)
    await engine.close()
    return found


async def test_a_copy_has_all_runs_and_events(
    original: Held, path: Path, location: Location, clock: ManualClock
) -> None:
    clock.advance(1_000)
    copied = await copy(path, location, LIMITS)
    assert copied == Copied(len(KEYS), sum(map(len, original.events.values())))
    engine = await JetStreamEngine.open(location, clock)
    found = await held(engine)
    assert (found.runs, found.events, found.cancelled) == (original.runs, original.events, "too slow")
    assert (found.lists, found.changes) == (original.lists, original.changes)
    assert found.changes != found.lists[0][::-1]
    await engine.close()


async def test_producers_continue_after_a_copy(
    original: Held, path: Path, location: Location, clock: ManualClock
) -> None:
    await copy(path, location, LIMITS)
    engine = await JetStreamEngine.open(location, clock)
    event = original.events[LONG][5]
    repeated = await engine.append(LONG, batch_of([event], first=6))
    assert (repeated.duplicate, repeated.first_sequence) == (True, 6)
    receipt = await engine.append(LONG, batch_of([custom(), run_finished()], first=13))
    assert (receipt.first_sequence, receipt.last_sequence) == (13, 14)
    with refused("RUN_SEALED"):
        await engine.append(SILENT, batch_of([custom()], first=3))
    await engine.create_run(RunKey("acme", "new"), Run(name="weather"))
    page = await engine.list_runs(RunQuery(tenant="acme", limit=1))
    assert [run.run_id for run in page.runs] == ["new"]
    await engine.close()


@pytest.mark.parametrize("keep_epoch", [False, True])
async def test_tokens(original: Held, path: Path, location: Location, clock: ManualClock, keep_epoch: bool) -> None:
    def tokens(identity: StoreIdentity) -> ResumeTokens:
        return ResumeTokens(Signer({key.id: key.secret for key in identity.keys}), identity.epoch)

    created_ns = original.runs[ENDED].create_time.ToNanoseconds()
    token = tokens(original.identity).issuer(ENDED, 0, created_ns).at(3).decode()
    await copy(path, location, LIMITS, keep_epoch=keep_epoch)
    engine = await JetStreamEngine.open(location, clock)
    if keep_epoch:
        position = tokens(engine.identity).read(token, ENDED)
        position.check((await engine.get_run(ENDED)).create_time.ToNanoseconds(), 4)
        assert position.sequence == 3
    else:
        with refused("STORE_EPOCH_CHANGED"):
            tokens(engine.identity).read(token, ENDED)
    await engine.close()


@pytest.mark.parametrize("keep_epoch", [False, True])
async def test_fences_grow_over_a_copy_and_a_lost_stream_of_leases(
    original: Held, path: Path, location: Location, keep_epoch: bool
) -> None:
    """Also over those of a server that ran on after a copy that was cut off."""
    late = ManualClock(time_ns=4_000_000_000_000_000_000)  # the machine's own may have been set back since
    seen = [await fence(await SQLiteEngine.open(path, late))]
    await copy(path, location, LIMITS, keep_epoch=keep_epoch)
    seen.append(await fence(await JetStreamEngine.open(location, late)))
    assert seen == sorted(set(seen))
    if keep_epoch:
        seen += [await fence(await SQLiteEngine.open(path, late)) for _ in range(3)]
        await copy(path, location, LIMITS, keep_epoch=True)
        assert await fence(await JetStreamEngine.open(location, late)) > max(seen)


async def test_fences_grow_after_the_stream_of_leases_was_deleted(location: Location, clock: ManualClock) -> None:
    seen = [await fence(await JetStreamEngine.open(location, clock))]
    for _ in range(2):
        connection = await Connection.open(location)
        await connection.api(f"STREAM.DELETE.{location.lease_stream}")
        await connection.close()
        seen.append(await fence(await JetStreamEngine.open(location, clock)))
    assert seen == sorted(set(seen))


async def fence(engine: SQLiteEngine | JetStreamEngine) -> int:
    """The fence of a lease that is acquired of a store, which is closed then."""
    lease = await engine.leases.acquire(ConsumerKey(LONG, "ui"), Holder(session_id="s", attempt=1), lambda: None)
    await engine.leases.release(lease)
    await engine.close()
    return lease.fence


async def test_an_interrupted_copy_is_repeated(
    original: Held, path: Path, location: Location, clock: ManualClock
) -> None:
    await copy(path, location, LIMITS)
    connection = await Connection.open(location)
    subjects = location.run(LONG)
    last = await Messages(connection).last(subjects.stream, subjects.all)
    assert last is not None
    await connection.api(f"STREAM.MSG.DELETE.{subjects.stream}", seq=last.sequence)
    subjects = location.run(ENDED)
    await connection.api(f"STREAM.PURGE.{subjects.stream}", filter=subjects.all)
    await connection.close()
    await copy(path, location, LIMITS)
    engine = await JetStreamEngine.open(location, clock)
    found = await held(engine)
    assert (found.runs, found.events) == (original.runs, original.events)
    await engine.close()


async def test_another_store_is_refused(original: Held, path: Path, location: Location, clock: ManualClock) -> None:
    await (await JetStreamEngine.open(location, clock)).close()
    with pytest.raises(StoreUnusable, match="another store"):
        await copy(path, location, LIMITS)


async def test_a_file_in_use_is_refused(original: Held, path: Path, location: Location, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(path, clock)
    with pytest.raises(StoreLocked):
        await copy(path, location, LIMITS)
    await engine.close()


async def test_a_damaged_file_is_reported(original: Held, path: Path, location: Location) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("DELETE FROM batches WHERE id = (SELECT max(id) FROM batches WHERE id >> 32 = 3)")
    with pytest.raises(StoreDamaged, match="lacks events from 12 on"):
        await copy(path, location, LIMITS)
