"""While changes wait for the disk: nobody is refused, abandoned or forgotten because of what is not durable."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any, cast

import apsw
import pytest

from lavant.server.errors import ServiceError
from lavant.server.model import RunKey
from lavant.server.store import backlog
from lavant.server.store.sqlite import SQLiteEngine, commits
from lavant.server.store.sqlite.writer import Operation, Writer
from lavant.v1.event_service_pb2 import BatchReceipt
from lavant.v1.run_pb2 import Run, RunState
from support.calls import until
from support.clock import ManualClock
from support.engines import KEY, refused, started
from support.events import batch_of, message_finished, noise, run_finished, run_started, text_delta

LARGE = noise(300_000)


class GatedWriter(Writer):
    """Waits for the test before each commit, as for a disk that hangs."""

    gate = ThreadEvent()

    def _commit(self, group: Sequence[Operation]) -> ServiceError | None:
        self.gate.wait(20)
        return super()._commit(group)


@pytest.fixture
async def gated(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SQLiteEngine]:
    monkeypatch.setattr(commits, "Writer", GatedWriter)
    GatedWriter.gate.set()
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    yield engine
    GatedWriter.gate.set()
    await engine.close()


async def test_a_refusal_that_stands_on_a_failed_commit_gets_its_error(tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock, max_bytes=200_000)
    await started(engine)
    finished = engine.append(KEY, batch_of([text_delta(LARGE), message_finished(), run_finished()], first=3))
    after_the_end = engine.append(KEY, batch_of([text_delta()], first=6))
    for append in (finished, after_the_end):
        with refused("QUOTA_EXCEEDED"):
            await append
    assert (await engine.get_run(KEY)).state == RunState.RUN_STATE_RUNNING
    await engine.close()


async def test_who_waits_for_the_disk_is_not_silent(gated: SQLiteEngine, clock: ManualClock) -> None:
    run = Run(name="weather")
    run.producer_timeout.seconds = 30
    await gated.create_run(KEY, run)
    GatedWriter.gate.clear()
    append = gated.append(KEY, batch_of([run_started()]))
    clock.advance(31)
    assert await gated.abandon_silent_runs(0) == []
    GatedWriter.gate.set()
    await append
    clock.advance(29)
    assert await gated.abandon_silent_runs(0) == []
    clock.advance(2)
    assert await gated.abandon_silent_runs(0) == [KEY]


async def test_what_waits_for_the_disk_is_bounded(gated: SQLiteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await started(gated)
    monkeypatch.setattr(backlog, "MAX_BYTES", 100_000)
    GatedWriter.gate.clear()
    waiting = gated.append(KEY, batch_of([text_delta(LARGE)], first=3))
    with refused("UNAVAILABLE") as caught:
        await _open_and_wait(gated.append(KEY, batch_of([text_delta()], first=4)))
    assert caught.value.retry_after
    assert (await waiting).last_sequence == 3
    assert (await gated.append(KEY, batch_of([text_delta()], first=4))).last_sequence == 4


async def _open_and_wait(append: asyncio.Future[BatchReceipt]) -> None:
    GatedWriter.gate.set()
    await append


async def test_ended_runs_are_not_kept_in_memory(tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    await started(engine)
    assert KEY in engine._logs._entries
    await engine.append(KEY, batch_of([message_finished(), run_finished()], first=3))
    assert KEY not in engine._logs._entries
    await engine.close()


async def test_a_read_is_of_one_run_and_not_of_the_next_of_its_id(tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    await started(engine)
    await engine.append(KEY, batch_of([message_finished(), run_finished()], first=3))
    created_ns = (await engine.get_run(KEY)).create_time.ToNanoseconds()
    assert await engine.read(KEY, 0, 1, created_ns)
    await engine.delete_run(KEY)
    clock.advance(1)
    await started(engine)
    with refused("RUN_NOT_FOUND"):
        await engine.read(KEY, 0, 1, created_ns)
    await engine.close()


class Checkpoints:
    """A connection that notes how long each of its checkpoints may wait for readers."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.patience: list[object] = []
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def wal_checkpoint(self, mode: int) -> tuple[int, int]:
        self.patience.append(self._connection.pragma("busy_timeout"))
        return self._connection.wal_checkpoint(mode=mode)


async def test_a_checkpoint_never_waits_for_readers(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[Checkpoints] = []

    def noting(*, connection: apsw.Connection, **more: Any) -> Writer:
        noted.append(Checkpoints(connection))
        return Writer(connection=cast("apsw.Connection", noted[0]), **more)

    monkeypatch.setattr(commits, "Writer", noting)
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    await started(engine)
    for number in range(3, 13):
        await engine.append(KEY, batch_of([text_delta(noise(1_000_000))], first=number))
    await engine.close()
    assert len(noted[0].patience) >= 2
    assert set(noted[0].patience) == {0}


async def test_deleting_goes_on_without_its_caller(tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    key = RunKey("acme", "doomed")
    await started(engine, key)
    await engine.append(key, batch_of([message_finished(), run_finished()], first=3))
    deletion = asyncio.ensure_future(engine.delete_run(key))
    await asyncio.sleep(0)
    deletion.cancel()
    await asyncio.wait((deletion,))
    await started(engine)  # durable only after the deletion is
    await engine._decisions.finish()
    await engine.close()
    with apsw.Connection(str(tmp_path / "lavant.db")) as connection:
        assert connection.execute("SELECT count(*) FROM unpurged").get == 0
        assert connection.execute("SELECT count(*) FROM batches").get == 1


class ListedWriter(GatedWriter):
    """Lists the tenants of each commit's operations, too."""

    commits: list[list[str]]

    def _commit(self, group: Sequence[Operation]) -> ServiceError | None:
        self.commits.append([operation.tenant for operation in group])
        return super()._commit(group)


async def test_a_commit_has_a_part_of_every_tenant(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "Writer", ListedWriter)
    ListedWriter.commits = []
    ListedWriter.gate.set()
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    flood, one = [await started(engine, RunKey(tenant, "run")) for tenant in ("flood", "one")]
    ListedWriter.commits.clear()
    ListedWriter.gate.clear()
    under_way = engine.append(flood, batch_of([text_delta()], first=3))
    await until(lambda: len(ListedWriter.commits) == 1)
    floods = [engine.append(flood, batch_of([text_delta()], first=number)) for number in range(4, 1_004)]
    await asyncio.sleep(0)
    appended = engine.append(one, batch_of([text_delta()], first=3))
    ListedWriter.gate.set()
    await appended
    assert not floods[-1].done()
    await asyncio.gather(under_way, *floods)
    await engine.close()
    sizes = [(group.count("flood"), group.count("one")) for group in ListedWriter.commits]
    assert sizes[:2] == [(1, 0), (250, 1)]
    assert sum(flooded for flooded, _ in sizes) == 1_001


async def test_a_tenants_part_of_a_commit_is_bounded_in_bytes(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "Writer", ListedWriter)
    ListedWriter.commits = []
    ListedWriter.gate.set()
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    await started(engine)
    ListedWriter.commits.clear()
    ListedWriter.gate.clear()
    appends = [engine.append(KEY, batch_of([text_delta(LARGE)], first=number)) for number in range(3, 33)]
    ListedWriter.gate.set()
    await asyncio.gather(*appends)
    await engine.close()
    assert max(map(len, ListedWriter.commits)) == 7  # of 300 kB each: the seventh is the one that fills 2 MiB


def test_only_tenants_above_their_share_wait_for_a_full_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_BYTES", 100)
    waiting = backlog.Backlog()
    waiting.add("flood", 99)
    assert not waiting.is_full("flood")
    waiting.add("flood", 1)
    assert waiting.is_full("flood")
    assert not waiting.is_full("one")
    waiting.add("one", 50)
    assert waiting.is_full("one")
    assert not waiting.is_full("another")
    waiting.remove("flood", 100)
    assert not waiting.is_full("one")
