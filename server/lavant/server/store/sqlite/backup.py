"""Backups: one consistent copy of a store, taken while a server goes on writing to it."""

import os
from contextlib import closing
from pathlib import Path

import apsw

from lavant.server.store.failpoints import failpoint
from lavant.server.store.sqlite.partial_file import PartialFile
from lavant.server.store.sqlite.schema import (
    BUSY_TIMEOUT_MS,
    StoreDamaged,
    StoreUnusable,
    check_sqlite_version,
    read_meta,
)
from lavant.server.store.sqlite.verification import Contents, readable, verify

_PAGES_AT_ONCE = 2_048
_BESIDE_A_STORE = ("-wal", "-shm", ".lock")


def back_up(store: Path, destination: Path, *, force: bool = False) -> Contents:
    """Copy a store as it stands now; `force` replaces a file that is at the destination.

    All that was acknowledged before the call is in the copy, and nothing that came after it began. The
    copy appears at the destination once it is complete, verified and durable; it needs no file beside it.

    The store's server reads and writes on. Its write-ahead log grows meanwhile by what it writes,
    and shrinks when the copy is done. Raises StoreUnusable, or OSError, and changes nothing then.
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
    """Raise StoreUnusable unless there is a file."""
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
    """Tell whether a path is a store's, or that of a file beside one: neither is ever written over."""
    if any(Path(f"{path}{suffix}").exists() for suffix in _BESIDE_A_STORE):
        return True
    return any(
        path.name.endswith(suffix) and Path(f"{path}".removesuffix(suffix)).exists() for suffix in _BESIDE_A_STORE
    )


def _copy(store: Path, partial: PartialFile) -> None:
    with readable(store), closing(open_source(store)) as source:
        source.execute("BEGIN")
        read_meta(source, store)  # the view that this reads is the one that is copied
        try:
            _copy_pages(source, partial)
        except (apsw.FullError, apsw.IOError) as error:
            raise StoreUnusable(f"{store} cannot be copied to {partial.path}: {error}") from error
    partial.detach_wal()


def open_source(store: Path) -> apsw.Connection:
    """Open a store without changing anything in it, also if this is the last connection to be closed."""
    source = apsw.Connection(os.fspath(store), flags=apsw.SQLITE_OPEN_READWRITE)
    source.set_busy_timeout(BUSY_TIMEOUT_MS)
    source.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    source.pragma("query_only", True)
    return source


def _copy_pages(source: apsw.Connection, partial: PartialFile) -> None:
    with closing(apsw.Connection(os.fspath(partial.path), flags=apsw.SQLITE_OPEN_READWRITE)) as target:
        # A copy that fails is thrown away, and one that succeeds is synced as a whole.
        target.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").fetchall()
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(_PAGES_AT_ONCE)
                failpoint("during_backup")
