"""The SQLite engine on a disk that is watched: what is acknowledged is durable, and a failed fsync is the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from lavant.server.model import RunKey
from lavant.server.store.port import Notice
from lavant.server.store.sqlite import SQLiteEngine
from support.clock import ManualClock
from support.disk import Disk, watched_disk
from support.engines import KEY, created, refused, started, stored, watch_changes_of
from support.events import a_run_of, batch_of, message_started, noise, run_finished, run_started, text_delta

LARGEST = noise(400_000)
OTHER = RunKey("acme", "other")


@pytest.fixture
def disk() -> Iterator[Disk]:
    with watched_disk() as opened:
        yield opened


@pytest.fixture
def fatal() -> list[str]:
    """Errors by which the engine ended."""
    return []


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock, disk: Disk, fatal: list[str]) -> AsyncIterator[SQLiteEngine]:
    opened = await SQLiteEngine.open(tmp_path / "lavant.db", clock, on_fatal=fatal.append)
    yield opened
    disk.fails = lambda kind, suffix: None
    await opened.close()


async def _append(engine: SQLiteEngine, number: int) -> object:
    event = message_started() if number == 2 else text_delta() if number > 2 else run_started()
    return await engine.append(KEY, batch_of([event], first=number))


async def test_nothing_is_acknowledged_or_shown_before_it_is_synced(engine: SQLiteEngine, disk: Disk) -> None:
    told: list[bool] = []
    engine.watch(KEY, lambda _: told.append(disk.unsynced("-wal")))
    await asyncio.sleep(0)
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: created(engine),
        *(partial(_append, engine, number) for number in range(1, 9)),
        lambda: engine.cancel_run(KEY, "enough"),
        lambda: engine.append(KEY, batch_of([run_finished()], first=9)),
        lambda: engine.delete_run(KEY),
    ]
    for change in changes:
        disk.done.clear()
        await change()
        assert ("write", "-wal") in disk.done
        assert not disk.unsynced("-wal")
    assert told == [False] * len(changes)


async def test_the_main_file_is_synced_before_the_log_is_begun_again(engine: SQLiteEngine, disk: Disk) -> None:
    """What is in the main file alone must be durable there before its copy in the log is written over."""
    await started(engine)
    number = 3
    while ("write", "db") not in disk.done:
        await engine.append(KEY, batch_of([text_delta(LARGEST)], first=number))
        number += 1
    await engine.close()
    writes = [index for index, done in enumerate(disk.done) if done == ("write", "db")]
    assert ("sync", "db") in disk.done[writes[-1] :]


@pytest.mark.parametrize("result", [apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_DIR_FSYNC])
async def test_a_failed_sync_or_write_is_the_end(
    engine: SQLiteEngine, disk: Disk, fatal: list[str], result: int
) -> None:
    await started(engine)
    heard: list[Notice] = []
    await watch_changes_of(engine, KEY, heard.append)
    kind = "write" if result == apsw.SQLITE_IOERR_WRITE else "sync"
    disk.fails = lambda done, suffix: result if (done, suffix) == (kind, "-wal") else None
    with refused("UNAVAILABLE"):
        await engine.append(KEY, batch_of([text_delta()], first=3))
    assert len(fatal) == 1
    disk.fails = lambda done, suffix: None  # the kernel forgets: a second sync succeeds, and means nothing
    for _ in range(2):
        with refused("UNAVAILABLE"):
            await engine.append(KEY, batch_of([text_delta()], first=3))
    with refused("UNAVAILABLE"):
        await created(engine, OTHER)
    assert len(fatal) == 1
    assert heard == []


@pytest.mark.parametrize(("kind", "result"), [("sync", apsw.SQLITE_IOERR_FSYNC), ("write", apsw.SQLITE_IOERR_WRITE)])
async def test_a_checkpoint_that_fails_is_the_end(
    engine: SQLiteEngine, disk: Disk, fatal: list[str], kind: str, result: int
) -> None:
    await started(engine)
    disk.fails = lambda done, suffix: result if (done, suffix) == (kind, "db") else None
    number = 3
    with refused("UNAVAILABLE"):
        while number < 100:
            await engine.append(KEY, batch_of([text_delta(LARGEST)], first=number))
            number += 1
    assert len(fatal) == 1
    assert number < 100


async def test_a_checkpoint_without_room_is_tried_again(engine: SQLiteEngine, disk: Disk, fatal: list[str]) -> None:
    await started(engine)
    disk.fails = lambda done, suffix: apsw.SQLITE_FULL if (done, suffix) == ("write", "db") else None
    for number in range(3, 43):
        await engine.append(KEY, batch_of([text_delta(LARGEST)], first=number))
    disk.fails = lambda done, suffix: None
    for number in range(43, 83):
        await engine.append(KEY, batch_of([text_delta(LARGEST)], first=number))
    assert ("write", "db") in disk.done
    assert fatal == []
    assert len(await stored(engine)) == 82


async def test_a_full_disk_is_logged_when_it_begins_and_ends(
    engine: SQLiteEngine, disk: Disk, fatal: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    await started(engine)
    for first in (3, 23):
        caplog.clear()
        disk.fails = lambda done, suffix: apsw.SQLITE_FULL if done == "write" else None
        for _ in range(20):
            with refused("QUOTA_EXCEEDED") as caught:
                await engine.append(KEY, batch_of([text_delta()], first=first))
            assert caught.value.retry_after
        disk.fails = lambda done, suffix: None
        for number in range(first, first + 20):
            await engine.append(KEY, batch_of([text_delta()], first=number))
        (began, ended) = caplog.records
        assert (began.levelname, ended.levelname) == ("ERROR", "WARNING")
        assert "no room left" in began.message
        assert "again" in ended.message
    assert fatal == []


@pytest.mark.parametrize("suffix", ["db", "-wal"])
async def test_a_read_that_the_disk_refuses_is_no_damage(
    engine: SQLiteEngine, disk: Disk, fatal: list[str], suffix: str
) -> None:
    await created(engine)
    await engine.append(KEY, batch_of(a_run_of(50)))
    engine._commits._writer._move_wal(apsw.SQLITE_CHECKPOINT_PASSIVE if suffix == "db" else 0)
    engine._logs.clear()
    for connection in (engine._lookups, *engine._reader._quick._connections):
        connection.execute("PRAGMA shrink_memory")
    disk.fails = lambda done, found: apsw.SQLITE_IOERR_CORRUPTFS if done == "read" else None
    for ask in (lambda: stored(engine), lambda: engine.get_run(KEY), lambda: engine.delete_run(KEY)):
        with refused("UNAVAILABLE") as caught:
            await ask()
        assert caught.value.retry_after
    assert fatal == []
    disk.fails = lambda done, found: None
    assert len(await stored(engine)) == 50
    await engine.delete_run(KEY)
