"""The SQLite engine's file: opened again, locked, damaged, of another version."""

import asyncio
import random
import resource
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any

import apsw
import pytest

from lavant.server.errors import ServiceError
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.port import Holder, RunPage, RunQuery
from lavant.server.store.sqlite import SQLiteEngine, StoreDamaged, StoreLocked, StoreUnusable, queries, schema
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run
from support.clock import ManualClock
from support.engines import KEY, created, pending_cancel, refused, started, stored
from support.events import a_run_of, batch_of, run_finished, text_delta


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "lavant.db"


@pytest.fixture
async def opened(path: Path, clock: ManualClock) -> AsyncIterator[SQLiteEngine]:
    engine = await SQLiteEngine.open(path, clock)
    yield engine
    await engine.close()


async def test_what_was_stored_is_there_when_opened_again(path: Path, clock: ManualClock) -> None:
    first = await SQLiteEngine.open(path, clock)
    await started(first)
    await first.cancel_run(KEY, "enough")
    run, identity = await first.get_run(KEY), first.identity
    lease = await first.leases.acquire(ConsumerKey(KEY, "ui"), Holder(session_id="s", attempt=1), lambda: None)
    await first.close()
    again = await SQLiteEngine.open(path, clock)
    assert (await again.get_run(KEY), again.identity) == (run, identity)
    assert len(await stored(again)) == 2
    assert await pending_cancel(again, KEY) == "enough"
    with refused("PRODUCER_GAP"):
        await again.append(KEY, batch_of([text_delta()], first=4))
    assert (await again.append(KEY, batch_of([text_delta()], first=3))).last_sequence == 3
    newer = await again.leases.acquire(ConsumerKey(KEY, "ui"), Holder(session_id="t", attempt=1), lambda: None)
    assert newer.fence > lease.fence
    await again.close()


async def test_positions_are_not_given_out_twice(path: Path, clock: ManualClock) -> None:
    query = RunQuery(tenant="acme", limit=10)
    first = await SQLiteEngine.open(path, clock)
    await created(first)
    await first.append(KEY, batch_of(a_run_of(4)))
    _, position = await first.list_changes(query)
    await first.delete_run(KEY)
    await first.close()
    again = await SQLiteEngine.open(path, clock)
    await created(again)
    changes, _ = await again.list_changes(query, position)
    assert [change.run.run_id for change in changes] == ["run"]
    assert await stored(again) == []
    await again.close()


async def test_the_log_of_a_deleted_run_goes_piece_by_piece(opened: SQLiteEngine) -> None:
    await started(opened)
    appends = [opened.append(KEY, batch_of([text_delta()], first=number)) for number in range(3, 353)]
    await asyncio.gather(*appends)
    await opened.append(KEY, batch_of([run_finished()], first=353))
    await opened.delete_run(KEY)
    await opened._decisions.finish()
    for table in ("batches", "unpurged", "labels", "runs"):
        assert opened._lookups.execute(f"SELECT count(*) FROM {table}").get == 0


async def test_two_processes_cannot_share_a_file(opened: SQLiteEngine, path: Path, clock: ManualClock) -> None:
    with pytest.raises(StoreLocked, match=f"{path} is in use by another process.*stop that process"):
        await SQLiteEngine.open(path, clock)
    await created(opened)


async def test_a_link_to_a_file_in_use_is_refused(opened: SQLiteEngine, path: Path, clock: ManualClock) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StoreLocked, match="in use by another process"):
        await SQLiteEngine.open(link, clock)


async def test_only_the_owner_may_read_the_files(opened: SQLiteEngine, path: Path) -> None:
    await created(opened)
    files = list(path.parent.iterdir())
    assert {file.name for file in files} == {f"lavant.db{suffix}" for suffix in ("", "-wal", "-shm", ".lock")}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_a_store_in_memory_is_refused(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(StoreUnusable, match=r":memory: cannot have a write-ahead log \(SQLite answered: memory\)"):
        await SQLiteEngine.open(":memory:", clock)
    assert [file.name for file in folder.iterdir()] == [":memory:.lock"]


class _Unshared(apsw.Connection):
    """A connection to a file in a file system that SQLite knows to lack shared memory."""

    def __init__(self, path: str) -> None:
        super().__init__(path, vfs="unix-none")


class _Unmapped(apsw.Connection):
    """A connection to a file in a file system that turns out to lack shared memory."""

    def pragma(self, *_: Any, **__: Any) -> Any:
        raise apsw.exception_for(apsw.SQLITE_IOERR_SHMMAP)


@pytest.mark.parametrize("connection", [_Unshared, _Unmapped])
async def test_a_file_system_without_shared_memory_is_refused(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, connection: type[apsw.Connection]
) -> None:
    monkeypatch.setattr(apsw, "Connection", connection)
    with pytest.raises(StoreUnusable, match=r"cannot have a write-ahead log .* supports shared memory"):
        await SQLiteEngine.open(path, clock)


async def test_reads_go_on_without_a_file_descriptor_left(opened: SQLiteEngine) -> None:
    await started(opened)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        logs = await asyncio.gather(*(stored(opened) for _ in range(10)))
        page = await opened.list_runs(RunQuery(tenant="acme", limit=10))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [len(log) for log in logs] == [2] * 10
    assert len(page.runs) == 1


async def test_slow_lists_do_not_hold_up_reads(opened: SQLiteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    over = ThreadEvent()

    def slow(*_: Any, **__: Any) -> RunPage:
        over.wait()
        return RunPage([], None)

    monkeypatch.setattr(queries, "list_runs", slow)
    await started(opened)
    async with asyncio.TaskGroup() as lists:
        for _ in range(10):
            lists.create_task(opened.list_runs(RunQuery(tenant="acme", limit=10)))
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(30):
                assert len(await stored(opened)) == 2
        finally:
            over.set()


def test_a_sqlite_that_damages_files_is_refused() -> None:
    schema.check_sqlite_version("3.51.3")
    with pytest.raises(StoreUnusable, match=r"SQLite 3\.51\.2 .* install apsw 3\.51\.3"):
        schema.check_sqlite_version("3.51.2")


@pytest.mark.parametrize(
    ("version", "message"),
    [(schema.VERSION + 1, "newer version"), (schema.VERSION - 1, r"older version .* `lavant export`")],
)
async def test_file_of_another_version_is_refused(
    opened: SQLiteEngine, path: Path, clock: ManualClock, version: int, message: str
) -> None:
    await opened.close()
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE meta SET value = ? WHERE name = 'version'", (version,))
    connection.close()
    with pytest.raises(StoreUnusable, match=message):
        await SQLiteEngine.open(path, clock)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "lavant.db"
    path.write_bytes(b"These are not the bytes of a database. " * 100)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="restore it from a backup"):
            await SQLiteEngine.open(path, clock)


async def test_a_missing_batch_is_never_skipped(opened: SQLiteEngine, path: Path, clock: ManualClock) -> None:
    await started(opened)
    for number in range(3, 6):
        await opened.append(KEY, batch_of([text_delta()], first=number))
    row = 1 << 32
    for sequence in (2, 4, 5):
        with apsw.Connection(str(path)) as connection:
            saved = connection.execute("SELECT * FROM batches WHERE id = ?", (row | sequence,)).fetchall()
            connection.execute("DELETE FROM batches WHERE id = ?", (row | sequence,))
        with refused("DATA_LOSS"):
            await stored(opened)
        with apsw.Connection(str(path)) as connection:
            connection.executemany("INSERT INTO batches VALUES(?, ?, ?, ?, ?, ?)", saved)
    assert len(await stored(opened)) == 5


async def test_batches_and_runs_that_changed_places_are_noticed(opened: SQLiteEngine, path: Path) -> None:
    other = RunKey("acme", "other")
    for key in (KEY, other):
        await created(opened, key)
        await opened.append(key, batch_of(a_run_of(4)))
    opened._logs.clear()
    with apsw.Connection(str(path)) as connection:
        connection.execute("UPDATE batches SET id = id + 1000 WHERE id >> 32 = 1")
        connection.execute("UPDATE batches SET id = id - (1 << 32) WHERE id >> 32 = 2")
        connection.execute("UPDATE runs SET run_id = 'third' WHERE run_id = 'other'")
    with refused("DATA_LOSS"):
        await stored(opened)
    with refused("DATA_LOSS"):
        await opened.get_run(RunKey("acme", "third"))


async def test_a_damaged_run_does_not_keep_others_from_being_abandoned(
    opened: SQLiteEngine, path: Path, clock: ManualClock
) -> None:
    run = Run(name="weather")
    run.producer_timeout.seconds = 1
    for name in ("damaged", "whole"):
        await created(opened, RunKey("acme", name), run)
    opened._logs.clear()
    with apsw.Connection(str(path)) as connection:
        connection.execute("UPDATE runs SET crc = crc + 1 WHERE run_id = 'damaged'")
    clock.advance(2)
    assert list(await opened.abandon_silent_runs(0)) == [RunKey("acme", "whole")]
    with refused("DATA_LOSS"):
        await opened.append(RunKey("acme", "damaged"), batch_of([text_delta()]))


async def test_a_flipped_bit_is_noticed_or_does_no_harm(tmp_path: Path, clock: ManualClock) -> None:
    whole = tmp_path / "whole.db"
    runs, logs = await _fill(whole, clock)
    content = whole.read_bytes()
    chance = random.Random(7)
    noticed = 0
    for number in range(200):
        damaged = tmp_path / f"damaged-{number}.db"
        shutil.copy(whole, damaged)
        bit = chance.randrange(len(content) * 8) if number % 4 else chance.randrange(4096 * 8)
        with damaged.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes((content[bit // 8] ^ 1 << bit % 8,)))
        noticed += await _notices_damage(damaged, clock, runs, logs)
        damaged.unlink()
    assert noticed > 50


async def _fill(path: Path, clock: ManualClock) -> tuple[dict[RunKey, Run], dict[RunKey, list[Event]]]:
    engine = await SQLiteEngine.open(path, clock)
    keys = [RunKey(tenant, f"run-{number}") for tenant in ("acme", "bcme") for number in range(6)]
    for key in keys:
        await created(engine, key, Run(name="weather", labels={"key": "value"}, conversation_id="c"))
        await engine.append(key, batch_of(a_run_of(40)))
    runs = {key: await engine.get_run(key) for key in keys}
    logs = {key: await stored(engine, key) for key in keys}
    await engine.close()
    return runs, logs


async def _notices_damage(
    path: Path, clock: ManualClock, runs: dict[RunKey, Run], logs: dict[RunKey, list[Event]]
) -> bool:
    """Return whether damage was noticed; fails if anything wrong is served."""
    try:
        engine = await SQLiteEngine.open(path, clock)
    except StoreUnusable:
        return True
    try:
        lost = [await _is_lost(engine, key, runs[key], logs[key]) for key in runs]
        return any([*lost, await _is_list_lost(engine, runs)])
    finally:
        await engine.close()


async def _is_lost(engine: SQLiteEngine, key: RunKey, run: Run, log: list[Event]) -> bool:
    with _data_loss() as lost:
        assert await engine.get_run(key) == run
        assert await stored(engine, key) == log
    return bool(lost)


async def _is_list_lost(engine: SQLiteEngine, runs: dict[RunKey, Run]) -> bool:
    with _data_loss() as lost:
        page = await engine.list_runs(RunQuery(tenant="acme", limit=100))
        assert [runs[RunKey("acme", run.run_id)] for run in page.runs] == page.runs
        assert len(page.runs) == len(runs) / 2
    return bool(lost)


@contextmanager
def _data_loss() -> Iterator[list[ServiceError]]:
    """Collect a DATA_LOSS; any other error propagates."""
    lost: list[ServiceError] = []
    try:
        yield lost
    except ServiceError as error:
        if error.reason != ErrorReason.ERROR_REASON_DATA_LOSS:
            raise
        lost.append(error)
