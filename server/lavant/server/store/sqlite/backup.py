"""Backups: consistent copies of a store, taken while a server writes to it, and stores restored from them."""

import os
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from lavant.server.store.failpoints import failpoint
from lavant.server.store.sqlite.files import FileLock, PartialFile, sync_folder
from lavant.server.store.sqlite.schema import (
    BUSY_TIMEOUT_MS,
    StoreDamaged,
    StoreUnusable,
    begin_epoch,
    check_sqlite_version,
    read_meta,
)
from lavant.server.store.sqlite.verification import Contents, readable, verify

_PAGES_AT_ONCE = 2_048
_BESIDE_A_STORE = ("-wal", "-shm", ".lock")


def back_up(store: Path, destination: Path, *, force: bool = False) -> Contents:
    """Copy the current content of a store; `force` replaces a file that exists at the destination.

    The copy contains everything that was acknowledged before the call, and nothing that was written after the copy
    began. It appears at the destination once it is complete, verified and durable; it needs no file beside it.

    The store's server continues to read and write. Its write-ahead log grows meanwhile, and shrinks when the copy
    is done. Raises StoreUnusable or OSError, and then changes nothing.
    """
    check_sqlite_version()
    store, destination = store.resolve(), destination.resolve()
    check_exists(store, "store")
    _check_destination(store, destination, force)
    with PartialFile(destination) as partial:
        _copy(store, partial)
        try:
            contents = verify(partial.path)
        except StoreDamaged as error:
            raise StoreDamaged(store, error.finding, "keep the backups there are: no other was made") from error
        partial.keep()
    return contents


def check_exists(path: Path, what: str) -> None:
    """Raise StoreUnusable unless the path is a file."""
    if not path.is_file():
        raise StoreUnusable(f"there is no {what} at {path}")


def _check_destination(store: Path, destination: Path, force: bool) -> None:
    if destination.is_dir():
        raise StoreUnusable(f"{destination} is a folder; name a file in it")
    exists = destination.exists()
    if _used_by_a_store(destination) or (exists and destination.samefile(store)):
        raise StoreUnusable(f"{destination} belongs to a store; name another file")
    if exists and not destination.is_file():
        raise StoreUnusable(f"{destination} is not a file")
    if exists and not force:
        raise StoreUnusable(f"{destination} exists; name another file, or replace it with --force")


def _used_by_a_store(path: Path) -> bool:
    """Return whether a path is that of a store, or of a file beside one: neither is ever overwritten."""
    if any(Path(f"{path}{suffix}").exists() for suffix in _BESIDE_A_STORE):
        return True
    return any(
        path.name.endswith(suffix) and Path(f"{path}".removesuffix(suffix)).exists() for suffix in _BESIDE_A_STORE
    )


def _copy(store: Path, partial: PartialFile) -> None:
    with readable(store), closing(open_source(store)) as source:
        source.execute("BEGIN")
        read_meta(source, store)  # begins the transaction whose view is copied
        try:
            _copy_pages(source, partial)
        except (apsw.FullError, apsw.IOError) as error:
            raise StoreUnusable(f"{store} cannot be copied to {partial.path}: {error}") from error
    partial.detach_wal()


def open_source(store: Path) -> apsw.Connection:
    """Open a store without ever changing it, even if this connection is the last one to be closed."""
    source = apsw.Connection(os.fspath(store), flags=apsw.SQLITE_OPEN_READWRITE)
    source.set_busy_timeout(BUSY_TIMEOUT_MS)
    source.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    source.pragma("query_only", True)
    return source


def _copy_pages(source: apsw.Connection, partial: PartialFile) -> None:
    with closing(apsw.Connection(os.fspath(partial.path), flags=apsw.SQLITE_OPEN_READWRITE)) as target:
        # A copy that fails is discarded, and one that succeeds is synced as a whole.
        target.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").fetchall()
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(_PAGES_AT_ONCE)
                failpoint("during_backup")


_KEPT = ("", "-wal")  # files of a store that hold data; SQLite recreates the others


class Restored(NamedTuple):
    """Contents of a restored store, and the path at which the replaced store is kept; None: there was none."""

    contents: Contents
    kept_aside: Path | None


def restore(backup: Path, store: Path, *, force: bool = False) -> Restored:
    """Create a store from a backup; with `force`, an existing store is renamed to `.old-<time>`.

    The store begins a new epoch: resume tokens of the previous one are refused with STORE_EPOCH_CHANGED.
    The key that signs tokens stays, so that those tokens are still distinguished from forged ones. Leases end with
    their server; fences keep growing. Producer sequences stay known: a batch that is sent again is stored once.

    The store appears once it is complete, verified and durable. Raises StoreLocked while a server has
    the store, StoreDamaged if the backup differs from what was written, StoreUnusable or OSError.
    """
    check_sqlite_version()
    backup, store = backup.resolve(), store.resolve()
    check_exists(backup, "backup")
    _check_backup(backup, store)
    if not force:
        _check_free(store)
    lock = FileLock(store)
    try:
        with PartialFile(store) as partial:
            _copy_backup(backup, partial)
            contents = _verified(partial, backup)
            _begin_epoch(partial, _incarnation(store))
            kept_aside = _set_aside(store)
            failpoint("during_restore")
            partial.keep()
    finally:
        lock.release()
    return Restored(contents, kept_aside)


def _check_backup(backup: Path, store: Path) -> None:
    if store.exists() and backup.samefile(store):
        raise StoreUnusable(f"{backup} is the store itself; name a backup of it")
    if Path(f"{backup}-wal").exists():
        raise StoreUnusable(f"{backup} is a store in use, not a backup; make one with `lavant backup`")


def _check_free(store: Path) -> None:
    found = next((path for path in _files(store) if path.exists()), None)
    if found is not None:
        raise StoreUnusable(f"{found} exists; name another store, or have it kept aside with --force")


def _files(store: Path) -> list[Path]:
    return [Path(f"{store}{suffix}") for suffix in _KEPT]


def _copy_backup(backup: Path, partial: PartialFile) -> None:
    with backup.open("rb") as source, partial.path.open("r+b") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    partial.detach_wal()


def _verified(partial: PartialFile, backup: Path) -> Contents:
    try:
        return verify(partial.path)
    except StoreDamaged as error:
        raise StoreDamaged(backup, error.finding, "restore from another backup") from error


def _incarnation(store: Path) -> int:
    """Return the incarnation of the store that is replaced; 0 if there is none, or it cannot be read.

    Fences of the restored store start above it. The clock ensures that too, unless it was set back.
    """
    if not store.exists():
        return 0
    try:
        with readable(store), closing(open_source(store)) as connection:
            return int(read_meta(connection, store)["incarnation"])
    except StoreUnusable:
        return 0


def _begin_epoch(partial: PartialFile, before: int) -> None:
    path = partial.path
    with readable(path), closing(apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").fetchall()
        with connection:
            begin_epoch(connection, path, before=before, now_ns=time.time_ns())
    partial.sync()


def _set_aside(store: Path) -> Path | None:
    """Rename the files of a store; they have both names until all of them have the new one."""
    there = [path for path in _files(store) if path.exists()]
    if not there:
        return None
    aside = Path(f"{store}.old-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    for path in there:
        Path(f"{aside}{path.name.removeprefix(store.name)}").hardlink_to(path)
    sync_folder(store.parent)
    for path in (*there, Path(f"{store}-shm")):
        path.unlink(missing_ok=True)
    sync_folder(store.parent)
    return aside
