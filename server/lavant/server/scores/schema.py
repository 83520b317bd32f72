"""The index's file: which tables it holds, and when what is found there is of no use any more."""

import os
from contextlib import suppress
from pathlib import Path

import apsw

from lavant.server.store.port import Opening

_VERSION = 2
_FILES = ("", "-wal", "-shm", "-journal")
_TABLES = """
CREATE TABLE meta(version INTEGER NOT NULL, epoch TEXT NOT NULL, incarnation INTEGER NOT NULL);  -- of the store
CREATE TABLE feeds(tenant TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;  -- of Engine.list_changes
CREATE TABLE logs(
    tenant TEXT NOT NULL,
    run_id TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    sequence INTEGER NOT NULL,   -- all up to here is in the index
    sealed INTEGER NOT NULL,     -- and that was all of it
    PRIMARY KEY(tenant, run_id)
) WITHOUT ROWID;
CREATE TABLE series(
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    rule_id TEXT NOT NULL,
    name TEXT NOT NULL,
    evaluator TEXT NOT NULL,
    version TEXT NOT NULL,
    run_name TEXT NOT NULL,
    labels TEXT NOT NULL,        -- a JSON object with sorted keys
    UNIQUE(tenant, rule_id, name, evaluator, version, run_name, labels)
);
CREATE TABLE scores(
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL REFERENCES series(id),
    time_ns INTEGER NOT NULL,    -- when the run that is scored ended
    recorded_ns INTEGER NOT NULL,
    kind INTEGER NOT NULL,       -- tally.Kind
    value REAL,
    class TEXT NOT NULL,
    mark BLOB NOT NULL UNIQUE,   -- Row.mark
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    record BLOB NOT NULL         -- lavant.v1.ScoreRecorded
);
CREATE INDEX scores_by_time ON scores(tenant, time_ns, mark);
CREATE INDEX scores_by_series ON scores(series, time_ns, kind, value, class);
CREATE INDEX scores_by_record ON scores(series, recorded_ns, kind, value);
CREATE INDEX scores_by_subject ON scores(tenant, subject, time_ns, mark);
CREATE TABLE tallies(
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL REFERENCES series(id),
    span INTEGER NOT NULL,       -- seconds
    start INTEGER NOT NULL,      -- seconds since 1970
    tally BLOB NOT NULL,         -- Tally.encode
    UNIQUE(series, span, start)
);
"""
# Marks fall all over their index: with little memory and early checkpoints, each batch rewrites most of it.
_PRAGMAS = """
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 8192;
"""


def open_nameless() -> apsw.Connection:
    """Open a file without a name, which goes with the connection."""
    connection = apsw.Connection("")
    connection.execute(_PRAGMAS + "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;").fetchall()
    connection.execute(_TABLES).fetchall()
    return connection


def open_file(path: Path, epoch: str, opening: Opening) -> apsw.Connection:
    """Open the index that was made in the last opening of this store, or begin a new one in its place.

    A store that was opened without the index, or another file put in its place, shows by its incarnation.
    A power cut may take back what was written last, positions and scores together: it is read again.
    """
    try:
        connection = _connect(path)
        try:
            if _belongs(connection, epoch, opening.before):
                connection.execute("UPDATE meta SET incarnation = ?", (opening.incarnation,))
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
    except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError, UnicodeDecodeError):
        pass  # all that was in it can be read again
    for suffix in _FILES:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()
    connection = _connect(path)
    with connection:
        connection.execute(_TABLES).fetchall()
        connection.execute("INSERT INTO meta VALUES(?, ?, ?)", (_VERSION, epoch, opening.incarnation))
    return connection


def _connect(path: Path) -> apsw.Connection:
    # Nobody else may read what scores say, nor in SQLite's files beside this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(os.fspath(path))
    try:
        connection.pragma("journal_mode", "WAL")
        connection.execute(_PRAGMAS + "PRAGMA synchronous = NORMAL;").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _belongs(connection: apsw.Connection, epoch: str, incarnation: int) -> bool:
    if not connection.table_exists(None, "meta"):
        return False
    found = connection.execute("SELECT * FROM meta").fetchall()
    return found == [(_VERSION, epoch, incarnation)] and connection.execute("PRAGMA quick_check(1)").get == "ok"
