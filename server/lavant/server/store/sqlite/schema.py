"""Schema of the file: its tables, the setup of connections, and the checks when it is opened."""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import google_crc32c

from lavant.server.store import listing, token_keys
from lavant.server.store.port import Opening, StoreIdentity
from lavant.server.store.token_keys import TokenKey

VERSION = 2
BUSY_TIMEOUT_MS = 5_000
_CHECKED_META = ("version", "epoch", "secret", "incarnation")
_META_NAMES = {*_CHECKED_META, "change", "crc"}
_LEASES_AN_OPENING = 1 << 24
_MINIMUM_SQLITE = (3, 51, 3)  # before: the WAL-reset bug, https://sqlite.org/wal.html#walresetbug

IN_MEMORY = ":memory:"  # SQLite's name for a database without a file
_NO_SHARED_MEMORY = {apsw.SQLITE_IOERR_SHMOPEN, apsw.SQLITE_IOERR_SHMMAP, apsw.SQLITE_IOERR_SHMLOCK}
_PRAGMAS = """
PRAGMA synchronous = FULL;
PRAGMA journal_size_limit = 67108864;
PRAGMA foreign_keys = ON;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA mmap_size = 0;
"""

_TABLES = f"""
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE runs(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    {listing.COLUMNS},
    change INTEGER NOT NULL,     -- grows over all runs with every creation and change of state
    run BLOB NOT NULL,           -- lavant.v1.Run
    log BLOB NOT NULL,           -- LogState.encode
    crc INTEGER NOT NULL,        -- rows.run_checksum
    UNIQUE(tenant, run_id)
);
CREATE INDEX runs_by_change ON runs(tenant, change);
{listing.INDEXES}
CREATE TABLE batches(
    id INTEGER PRIMARY KEY,      -- runs.id << 32 | the batch's last sequence
    producer_id TEXT NOT NULL,   -- empty: the server itself
    producer_epoch INTEGER NOT NULL,
    first_producer_sequence INTEGER NOT NULL,
    crc INTEGER NOT NULL,        -- rows.batch_checksum
    events BLOB NOT NULL         -- Chunk.encode
);
CREATE VIEW appends AS
    SELECT b.*, r.seen_ns, r.run, r.log, r.crc AS run_crc FROM batches b JOIN runs r ON r.id = b.id >> 32;
CREATE TRIGGER append INSTEAD OF INSERT ON appends BEGIN
    INSERT INTO batches VALUES(NEW.id, NEW.producer_id, NEW.producer_epoch, NEW.first_producer_sequence,
                               NEW.crc, NEW.events);
    UPDATE runs SET seen_ns = NEW.seen_ns, run = NEW.run, log = NEW.log, crc = NEW.run_crc
        WHERE id = NEW.id >> 32 AND NEW.run IS NOT NULL;
END;
CREATE TABLE unpurged(run INTEGER PRIMARY KEY);  -- deleted runs whose batches are still there
CREATE TABLE deletions(
    change INTEGER PRIMARY KEY,  -- as in runs
    tenant TEXT NOT NULL,
    run_id TEXT NOT NULL,
    time_ns INTEGER NOT NULL
);
CREATE INDEX deletions_by_tenant ON deletions(tenant, change);
"""  # noqa: S608 - constants

# A damaged log counts as nothing here: it is reported when the run is read.
_STORED_BYTES = """
SELECT tenant, CAST(total(CASE WHEN json_valid(log) THEN json_extract(log, '$.bytes') END) AS INTEGER)
    FROM (SELECT tenant, CAST(log AS TEXT) AS log FROM runs) GROUP BY tenant"""


class StoreUnusable(RuntimeError):
    """The file cannot serve as a store; the message says why and what to do."""


class StoreLocked(StoreUnusable):
    """Another process owns the file."""


class StoreMoved(StoreUnusable):
    """The file at the store's path is not the one that is open, or it has another name too."""


class StoreDamaged(StoreUnusable):
    """The file is not what was written to it; `finding` describes the damage."""

    def __init__(
        self,
        path: Path,
        finding: str,
        advice: str = "restore it from a backup, or move it away to start with a new one",
    ) -> None:
        self.finding = " ".join(finding.split())  # SQLite's own findings can be several lines
        super().__init__(f"{path} is damaged ({self.finding}); {advice}")


class Meta(NamedTuple):
    """Metadata of the file. `incarnation` grows with every opening; see `Opening`."""

    identity: StoreIdentity
    opening: Opening
    next_run: int
    next_change: int
    last_created: int
    stored_bytes: dict[str, int]  # by tenant


def check_sqlite_version(version: str | None = None) -> None:
    """Raise StoreUnusable if the SQLite library has a version that may damage files."""
    found = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in found.split(".")) < _MINIMUM_SQLITE:
        minimum = ".".join(map(str, _MINIMUM_SQLITE))
        raise StoreUnusable(f"SQLite {found} has a bug that damages files; install apsw {minimum} or later")


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """Open a connection with the settings that all connections need. Raises StoreUnusable where WAL is impossible."""
    connection = apsw.Connection(os.fspath(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _use_wal(connection, path)
        connection.execute(_PRAGMAS).fetchall()
        if read_only:
            connection.pragma("query_only", True)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: apsw.Connection, path: Path) -> None:
    try:
        mode = connection.pragma("journal_mode", "WAL")
    except apsw.IOError as error:
        if getattr(error, "extendedresult", 0) not in _NO_SHARED_MEMORY:
            raise
        mode = "no shared memory"
    if mode != "wal":
        raise StoreUnusable(
            f"{path} cannot have a write-ahead log (SQLite answered: {mode}); "
            "name a file in a file system on this machine that supports shared memory"
        )


def open_file(path: Path, now_ns: int, *, own_key: bool = True) -> tuple[apsw.Connection, Meta]:
    """Open the file for writing at a wall time, after checking it, and create its tables if it is new.

    Without an `own_key`, a new file has no key that signs tokens.

    Raises StoreDamaged if the check finds anything, and StoreUnusable if it was written by a newer version.
    """
    try:
        connection = connect(path)
        _check(connection, path)
        with connection:
            meta = _read_meta(connection, path, now_ns, own_key=own_key)
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError) as error:
        raise StoreDamaged(path, str(error)) from error
    return connection, meta


def _check(connection: apsw.Connection, path: Path) -> None:
    checks = ["PRAGMA quick_check(1)"]
    if connection.table_exists(None, "runs"):
        checks.append("PRAGMA integrity_check(runs)")
    for check in checks:
        found = connection.execute(check).fetchall()
        if found != [("ok",)]:
            raise StoreDamaged(path, str(found[0][0]))


def _read_meta(connection: apsw.Connection, path: Path, now_ns: int, *, own_key: bool) -> Meta:
    if connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
        _create(connection, own_key=own_key)
    stored = read_meta(connection, path)
    before = stored["incarnation"]
    stored["incarnation"] = next_incarnation(before, now_ns)
    _write_meta(connection, stored)
    last_run = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").get or 0
    last_change = connection.execute("SELECT max(change) FROM runs").get or 0
    return Meta(
        identity=StoreIdentity(stored["epoch"], token_keys.decode(stored["secret"])),
        opening=Opening(stored["incarnation"], before),
        next_run=last_run + 1,
        next_change=max(last_change, stored["change"]) + 1,
        last_created=connection.execute("SELECT created FROM runs ORDER BY id DESC LIMIT 1").get or 0,
        stored_bytes=_stored_bytes(connection),
    )


def _stored_bytes(connection: apsw.Connection) -> dict[str, int]:
    found: Any = connection.execute(_STORED_BYTES)
    return dict(found)


def read_meta(connection: apsw.Connection, path: Path) -> dict[str, Any]:
    """Read the file's metadata. Raises StoreDamaged or StoreUnusable if it is not a store of this version."""
    rows: list[Any] = connection.execute("SELECT name, value FROM meta").fetchall()
    stored: dict[str, Any] = dict(rows)
    version = stored.get("version")
    if isinstance(version, int) and version != VERSION:
        raise StoreUnusable(_other_version(path, version))
    if _schema(connection) != _expected_schema():
        raise StoreDamaged(path, "its tables are not those that were created")
    valid = stored.keys() == _META_NAMES and isinstance(stored["change"], int)
    if not valid or stored["crc"] != _meta_checksum(stored):
        raise StoreDamaged(path, "its meta table fails its checksum")
    return stored


def _other_version(path: Path, version: int) -> str:
    if version > VERSION:
        return f"{path} was written by a newer version of lavant (schema {version}); upgrade this one"
    return (
        f"{path} was written by an older version of lavant (schema {version}; this one reads schema {VERSION}); "
        "copy its runs into a new store with `lavant export` of that version and `lavant import`"
    )


def next_incarnation(before: int, now_ns: int) -> int:
    """Return the incarnation of an opening after one with incarnation `before`, at a wall time.

    Fences count up from it, so it is a time in microseconds: higher than the fences of all earlier openings, even of
    those that a restored file has no record of. The margin covers a clock that was set back. The random part makes
    the openings of two copies of a file differ.
    """
    return max(before + _LEASES_AN_OPENING, now_ns // 1_000) + secrets.randbelow(_LEASES_AN_OPENING)


def begin_epoch(connection: apsw.Connection, path: Path, *, before: int, now_ns: int) -> None:
    """Begin a new store epoch: resume tokens of earlier epochs become invalid, and fences keep growing.

    `before` is the incarnation of the store that is replaced, 0 if there is none.
    """
    stored = read_meta(connection, path)
    incarnation = next_incarnation(max(stored["incarnation"], before), now_ns)
    _write_meta(connection, stored | {"epoch": secrets.token_hex(8), "incarnation": incarnation})


def change_token_keys(
    connection: apsw.Connection, path: Path, change: Callable[[Sequence[TokenKey]], Sequence[TokenKey]]
) -> None:
    """Replace the keys that sign tokens."""
    stored = read_meta(connection, path)
    _write_meta(connection, stored | {"secret": token_keys.encode(change(token_keys.decode(stored["secret"])))})


def _create(connection: apsw.Connection, *, own_key: bool) -> None:
    connection.execute(_TABLES).fetchall()
    keys = token_keys.encode([token_keys.first_key()] if own_key else [])
    new = {"epoch": secrets.token_hex(8), "secret": keys, "incarnation": 0, "change": 0}
    _write_meta(connection, {"version": VERSION, **new})


def _schema(connection: apsw.Connection) -> list[Any]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name").fetchall()


def _expected_schema() -> list[Any]:
    with closing(apsw.Connection(":memory:")) as scratch:
        scratch.execute(_TABLES).fetchall()
        return _schema(scratch)


def _write_meta(connection: apsw.Connection, meta: dict[str, Any]) -> None:
    written = meta | {"crc": _meta_checksum(meta)}
    connection.executemany("INSERT OR REPLACE INTO meta(name, value) VALUES(?, ?)", written.items())


def _meta_checksum(meta: dict[str, Any]) -> int:
    return int(google_crc32c.value(repr([meta[name] for name in _CHECKED_META]).encode()))
