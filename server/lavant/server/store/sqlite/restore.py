"""Restoring: a store that begins a new life with what a backup holds."""

import os
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from lavant.server.store.failpoints import failpoint
from lavant.server.store.sqlite.backup import check_exists, open_source
from lavant.server.store.sqlite.ownership import FileLock
from lavant.server.store.sqlite.partial_file import PartialFile, sync_folder
from lavant.server.store.sqlite.schema import (
    StoreDamaged,
    StoreUnusable,
    begin_epoch,
    check_sqlite_version,
    read_meta,
)
from lavant.server.store.sqlite.verification import Contents, readable, verify

_KEPT = ("", "-wal")  # what a store consists of; its other files are made anew


class Restored(NamedTuple):
    """What the store holds now, and where the one before it is kept; None: there was none."""

    contents: Contents
    kept_aside: Path | None


def restore(backup: Path, store: Path, *, force: bool = False) -> Restored:
    """Make a store from a backup; `force` keeps one that is there aside, as `.old-<time>`.

    The store begins a new epoch: resume tokens of its earlier life are refused with STORE_EPOCH_CHANGED.
    The key that signs tokens stays, so that those tokens are still told from forged ones. Leases do not
    outlive a server; fences go on growing. What producers have stored stays known: a resend is stored once.

    The store appears once it is complete, verified and durable. Raises StoreLocked while a server has
    the store, StoreDamaged if anything in the backup is not what was written, StoreUnusable or OSError.
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
            _copy(backup, partial)
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


def _copy(backup: Path, partial: PartialFile) -> None:
    with backup.open("rb") as source, partial.path.open("r+b") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    partial.detach_wal()


def _verified(partial: PartialFile, backup: Path) -> Contents:
    try:
        return verify(partial.path)
    except StoreDamaged as error:
        raise StoreDamaged(backup, error.finding, "restore from another backup") from error


def _incarnation(store: Path) -> int:
    """Incarnation of the store that is replaced; 0 if there is none, or none that can be read.

    Fences of the new life grow over it. The clock sees to that as well, unless it was set back.
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
    """Give the files of a store another name; they have both names until all of them have the new one."""
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
