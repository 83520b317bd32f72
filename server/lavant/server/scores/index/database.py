"""Database of the index: its threads, its tables, and when an existing file must be rebuilt."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from lavant.server.store.port import Opening
from lavant.server.store.reads import ReadThreads, open_temporary

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_ONLY = Opening(0, 0)  # of a store that no other process opens

_QUICK, _SLOW = 2, 1  # threads that read
_VERSION = 3
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
    direction INTEGER NOT NULL,  -- Series.direction
    UNIQUE(tenant, rule_id, name, evaluator, version, run_name, labels, direction)
);
CREATE TABLE scores(
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL REFERENCES series(id),
    time_ns INTEGER NOT NULL,    -- when the run that is scored ended
    recorded_ns INTEGER NOT NULL,
    kind INTEGER NOT NULL,       -- tally.Kind
    value REAL,
    class TEXT NOT NULL,
    mark BLOB NOT NULL UNIQUE,   -- ScoreRow.mark
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


class ScoreIndex:
    """Connections to the index: one that writes, in a thread of its own, and others that read, for callers in turn.

    With a path the index outlives the process, until another process opens its store; without a path it is deleted with
    the process.
    """

    def __init__(self, writer: apsw.Connection, readers: Sequence[apsw.Connection]) -> None:
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lavant-scores")
        self._readers = ReadThreads(readers[:_QUICK], slow=readers[_QUICK:], name="lavant-scores-read")

    @classmethod
    async def open(cls, path: Path | None, epoch: str, opening: Opening = _ONLY) -> "ScoreIndex":
        """Open the index, or create a new one unless there is an intact one of the store's last opening."""
        if path is None:
            return cls(*await asyncio.to_thread(open_temporary, _PRAGMAS + _TABLES, _QUICK + _SLOW))
        return cls(*await asyncio.to_thread(_open_all, path, epoch, opening))

    async def write(
        self,
        function: Callable[Concatenate[apsw.Connection, _Arguments], _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """Call a function that may write the index, after those before it."""
        call = partial(function, self._writer, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def read(
        self,
        function: Callable[Concatenate[apsw.Connection, _Arguments], _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """Call a function that reads the index as it was after some write; it ends early if the caller is cancelled."""
        return await self._readers.ask(lambda connection: function(connection, *arguments, **named))

    async def close(self) -> None:
        """Finish the calls under way, and close the file."""
        await self._readers.close()
        await asyncio.to_thread(self._thread.shutdown)
        self._writer.close()


def _open_all(path: Path, epoch: str, opening: Opening) -> tuple[apsw.Connection, list[apsw.Connection]]:
    opened = [_open_file(path, epoch, opening)]
    try:
        for _ in range(_QUICK + _SLOW):
            opened.append(_connect(path))
            opened[-1].execute("PRAGMA query_only = ON; PRAGMA cache_size = -8192").fetchall()
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    return opened[0], opened[1:]


def _open_file(path: Path, epoch: str, opening: Opening) -> apsw.Connection:
    """Open the index that was made in the last opening of this store, or create a new one instead.

    The incarnation shows that a store was opened without the index, or that another file replaced the index. A power
    cut may lose the last writes, positions and scores together: they are read again.
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
        pass  # it can be rebuilt from the logs
    for suffix in _FILES:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()
    connection = _connect(path)
    with connection:
        connection.execute(_TABLES).fetchall()
        connection.execute("INSERT INTO meta VALUES(?, ?, ?)", (_VERSION, epoch, opening.incarnation))
    return connection


def _connect(path: Path) -> apsw.Connection:
    # No other user may read scores, neither here nor in the files that SQLite puts beside this one.
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
