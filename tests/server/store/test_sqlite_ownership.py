"""Who owns a store's file, and what happens when the file is no longer the one at its path."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from lavant.server.model import ConsumerKey
from lavant.server.store.port import Holder
from lavant.server.store.sqlite import SQLiteEngine, StoreLocked, StoreMoved
from lavant.server.store.sqlite.backup import back_up, restore
from support.calls import until
from support.clock import ManualClock
from support.engines import KEY, refused, started, stored
from support.events import batch_of, text_delta

# ruff: noqa: ASYNC240 - nothing else runs here meanwhile

Change = Callable[[Path], object]


def delete_all(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()


def replace(path: Path) -> None:
    """Put a copy in the store's place, as a careless restore does."""
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def write_again(path: Path) -> None:
    path.unlink()
    path.touch()


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


CHANGES: dict[str, tuple[Change, str]] = {
    "deleted": (Path.unlink, "was deleted or moved away"),
    "all of it deleted": (delete_all, "was deleted or moved away"),
    "renamed": (lambda path: path.rename(path.with_name("other.db")), "was deleted or moved away"),
    "its folder renamed": (move_folder, "was deleted or moved away"),
    "replaced": (replace, "was replaced by another file"),
    "made anew": (write_again, "was replaced by another file"),
    "hard-linked": (lambda path: os.link(path, path.with_name("link.db")), "has 2 hard links"),
    "log deleted": (lambda path: Path(f"{path}-wal").unlink(), "was deleted or moved away"),
    "log replaced": (lambda path: replace(Path(f"{path}-wal")), "was replaced by another file"),
    "log hard-linked": (lambda path: os.link(f"{path}-wal", path.with_name("wal")), "has 2 hard links"),
    "index deleted": (lambda path: Path(f"{path}-shm").unlink(), "was deleted or moved away"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "lavant.db"


@pytest.fixture
def fatal() -> list[str]:
    """Errors by which the engine ended."""
    return []


@pytest.fixture
async def opened(path: Path, clock: ManualClock, fatal: list[str]) -> AsyncIterator[SQLiteEngine]:
    engine = await SQLiteEngine.open(path, clock, on_fatal=fatal.append)
    yield engine
    await engine.close()


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
async def test_a_file_that_changes_under_the_store_ends_it(
    opened: SQLiteEngine, path: Path, fatal: list[str], change: Change, said: str
) -> None:
    """Nothing is acknowledged from the change on, whether it is appended, repeated or there already."""
    await started(opened)
    change(path)
    with refused("UNAVAILABLE"):
        await opened.append(KEY, batch_of([text_delta()], first=3))
    with refused("UNAVAILABLE"):
        await opened.cancel_run(KEY, "enough")
    assert len(fatal) == 1
    assert said in fatal[0]
    assert str(path.parent) in fatal[0]


@pytest.mark.parametrize("change", [change for change, _ in CHANGES.values()], ids=CHANGES)
async def test_an_idle_store_notices_too(opened: SQLiteEngine, path: Path, fatal: list[str], change: Change) -> None:
    change(path)
    await until(lambda: bool(fatal))


async def test_a_repeated_batch_is_not_acknowledged_from_a_file_that_is_gone(opened: SQLiteEngine, path: Path) -> None:
    event = text_delta()
    await started(opened)
    await opened.append(KEY, batch_of([event], first=3))
    path.unlink()
    with refused("UNAVAILABLE"):
        await opened.append(KEY, batch_of([event], first=3))


async def test_a_link_that_points_elsewhere_now_ends_the_store(
    path: Path, tmp_path: Path, clock: ManualClock, fatal: list[str]
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    engine = await SQLiteEngine.open(link, clock, on_fatal=fatal.append)
    link.unlink()
    link.symlink_to(tmp_path / "other.db")
    (tmp_path / "other.db").touch()
    await until(lambda: bool(fatal))
    await engine.close()


async def test_what_was_acknowledged_outlives_a_deleted_log(
    opened: SQLiteEngine, path: Path, fatal: list[str], clock: ManualClock
) -> None:
    await started(opened)
    for number in range(3, 23):
        await opened.append(KEY, batch_of([text_delta()], first=number))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    await until(lambda: bool(fatal))
    await opened.close()
    again = await SQLiteEngine.open(path, clock)
    assert len(await stored(again)) == 22
    await again.close()


_RIVAL = """
import asyncio, sys
from lavant.server.clock import SystemClock
from lavant.server.store.sqlite import SQLiteEngine, StoreUnusable
try:
    asyncio.run(SQLiteEngine.open(sys.argv[1], SystemClock()))
except StoreUnusable as error:
    print(type(error).__name__, error)
"""


def rival(path: Path | str, folder: Path) -> str:
    """Output of another process that opens the store, from a folder of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _RIVAL, str(path)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("way", ["path", "relative", "symlink", "folder", "dots", "hard link"])
async def test_a_second_process_is_refused_however_it_writes_the_path(
    path: Path, tmp_path: Path, clock: ManualClock, fatal: list[str], way: str
) -> None:
    """Also if somebody has deleted the lock file, which is a name and no more."""
    engine = await SQLiteEngine.open(path, clock, on_fatal=fatal.append)
    (tmp_path / "symlink.db").symlink_to(path)
    (tmp_path / "linked").symlink_to(path.parent)
    (tmp_path / "other").mkdir()
    if way == "hard link":
        os.link(path, tmp_path / "other" / "lavant.db")
    ways: dict[str, Path | str] = {
        "path": path,
        "relative": "folder/lavant.db",
        "symlink": "symlink.db",
        "folder": tmp_path / "linked" / "lavant.db",
        "dots": tmp_path / "other" / ".." / "folder" / "lavant.db",
        "hard link": tmp_path / "other" / "lavant.db",
    }
    written = ways[way]
    said = await asyncio.to_thread(rival, written, tmp_path)
    Path(f"{path}.lock").unlink()
    said_without_lock = await asyncio.to_thread(rival, written, tmp_path)
    for each in (said, said_without_lock):
        assert each.startswith("StoreLocked"), each
        assert "in use by another process" in each
    await engine.close()


async def test_a_refused_rival_leaves_the_owner_s_locks_alone(
    opened: SQLiteEngine, path: Path, clock: ManualClock
) -> None:
    """Closing any descriptor of a file drops the process's POSIX locks on it: SQLite's own ones."""
    await started(opened)
    Path(f"{path}.lock").unlink()
    with pytest.raises(StoreLocked):
        await SQLiteEngine.open(path, clock)
    script = "import apsw, sys; apsw.Connection(sys.argv[1]).execute('PRAGMA journal_mode = DELETE').fetchall()"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, str(path)], capture_output=True)
    assert b"BusyError" in done.stderr, "another process could take the write-ahead log away"
    assert len(await stored(opened)) == 2


async def test_a_store_with_two_names_is_not_opened(path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(path, clock)
    await started(engine)
    await engine.close()
    other = path.with_name("other.db")
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(StoreMoved, match="has 2 hard links; a store must have one name only"):
            await SQLiteEngine.open(name, clock)
    other.unlink()
    again = await SQLiteEngine.open(path, clock)
    assert len(await stored(again)) == 2
    await again.close()


async def test_new_folders_are_durable_before_the_store_is_used(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    engine = await SQLiteEngine.open(tmp_path / "a" / "b" / "lavant.db", clock)
    assert {tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino} <= set(synced)
    await engine.close()


async def fence(path: Path, clock: ManualClock) -> int:
    """The fence of a lease that is acquired in an opening of its own."""
    engine = await SQLiteEngine.open(path, clock)
    lease = await engine.leases.acquire(ConsumerKey(KEY, "ui"), Holder(session_id="s", attempt=1), lambda: None)
    await engine.close()
    return lease.fence


async def test_fences_grow_over_restarts_restores_and_clocks_set_back(path: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    clock = ManualClock()
    seen = [await fence(path, clock)]
    back_up(path, backup)
    seen += [await fence(path, clock) for _ in range(5)]  # at one time
    seen.append(await fence(path, ManualClock(time_ns=0)))
    for _ in range(3):
        for aside in path.parent.glob("*.old-*"):
            aside.unlink()
        restore(backup, path, force=True)
        seen += [await fence(path, clock), await fence(path, ManualClock(time_ns=0))]
    assert seen == sorted(set(seen))
    assert seen[-1] < 1 << 53  # readers in JavaScript have no larger whole numbers


async def test_a_store_restored_over_a_damaged_one_has_higher_fences(path: Path, tmp_path: Path) -> None:
    before = await fence(path, ManualClock())
    back_up(path, tmp_path / "backup.db")
    path.write_bytes(b"nothing that SQLite could read" * 1_000)
    restore(tmp_path / "backup.db", path, force=True)
    assert await fence(path, ManualClock()) > before


async def test_openings_are_distinguished(path: Path, tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(path, clock)
    first = engine.opening
    await engine.close()
    (tmp_path / "copy.db").write_bytes(path.read_bytes())
    engine = await SQLiteEngine.open(path, clock)
    assert engine.opening.before == first.incarnation
    second = engine.opening
    await engine.close()
    (tmp_path / "copy.db").replace(path)
    engine = await SQLiteEngine.open(path, clock)
    assert engine.opening.before == first.incarnation
    assert engine.opening.incarnation not in (first.incarnation, second.incarnation)
    await engine.close()


def test_the_store_is_where_sqlite_keeps_its_files(tmp_path: Path) -> None:
    """The names of the files that are watched are SQLite's, beside the file that a link points to."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real" / "lavant.db")
    (tmp_path / "real" / "lavant.db").touch()
    connection = apsw.Connection(str(link))
    connection.pragma("journal_mode", "WAL")
    connection.execute("CREATE TABLE t(a)")
    assert {file.name for file in (tmp_path / "real").iterdir()} == {"lavant.db", "lavant.db-wal", "lavant.db-shm"}
    connection.close()
