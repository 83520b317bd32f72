"""Threads that read a database: queries run in turn of their callers, and stop when these have gone."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from time import thread_time
from traceback import clear_frames
from typing import Any, TypeVar

import apsw

from lavant.server.turns import Turns

QUICK = 0.02  # seconds of a thread's CPU, after which a query moves to the connections of slow ones
_STEPS = 50_000  # instructions of SQLite between two checks whether a query may continue, about 2 ms
_Answer = TypeVar("_Answer")
_Guard = Callable[[apsw.Connection], AbstractContextManager[None]]


class ReadThreads:
    """Connections to a database that only read, each used by one query at a time, in a thread of its own.

    Queries have their turn by tenant and connection. With slow connections, a query that takes longer than `QUICK`
    begins again on one of those, so that it never delays the many that are quick.
    """

    def __init__(
        self,
        connections: Sequence[apsw.Connection],
        *,
        slow: Sequence[apsw.Connection] = (),
        name: str,
        max_waiting: int | None = None,
        guard: _Guard = lambda _: nullcontext(),
    ) -> None:
        """Own the connections. `max_waiting` bounds the queries of a tenant that wait; `guard` translates failures."""
        self._quick = _Lane(connections, name, max_waiting, guard)
        self._slow = _Lane(slow, f"{name}-slow", max_waiting, guard) if slow else None

    async def ask(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        """Run a query on one consistent view of what is durable.

        If it is cancelled, it is not begun, or stops soon. Raises what the guard makes of a failure, and UNAVAILABLE if
        too many of the tenant's queries wait.
        """
        if self._slow is None:
            return await self._quick.ask(query, limit=None)
        try:
            return await self._quick.ask(query, limit=QUICK)
        except _TooSlow:
            return await self._slow.ask(query, limit=None)

    async def close(self) -> None:
        """Finish the queries that wait or run, and close the connections."""
        for lane in (self._quick, self._slow):
            if lane is not None:
                await lane.close()


class _TooSlow(Exception):
    """A query takes longer than it may on this connection."""


class _Stopped(Exception):
    """The caller of a query has gone."""


class _Lane:
    """Threads with a connection each."""

    def __init__(
        self, connections: Sequence[apsw.Connection], name: str, max_waiting: int | None, guard: _Guard
    ) -> None:
        self._connections = tuple(connections)
        self._idle = list(connections)
        self._turns = Turns(len(connections), max_waiting=max_waiting)
        self._pool = ThreadPoolExecutor(len(connections), thread_name_prefix=name)
        self._guard = guard

    async def ask(self, query: Callable[[apsw.Connection], _Answer], *, limit: float | None) -> _Answer:
        await self._turns.acquire()
        work = _Query(self._idle.pop(), limit, self._guard)
        running = asyncio.get_running_loop().run_in_executor(self._pool, work.run, query)
        running.add_done_callback(partial(self._finish, work))
        try:
            return await asyncio.shield(running)  # the connection is in use until the thread has finished
        except asyncio.CancelledError:
            work.stopped = True
            raise

    async def close(self) -> None:
        for _ in self._connections:
            await self._turns.acquire()
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()

    def _finish(self, work: "_Query", running: "asyncio.Future[Any]") -> None:
        if not running.cancelled():
            running.exception()  # nobody else takes it if the caller has gone: asyncio would log it
        self._idle.append(work.connection)
        self._turns.release()


class _Query:
    """One run of a query: it stops once its caller has gone, or after `limit` seconds of CPU."""

    def __init__(self, connection: apsw.Connection, limit: float | None, guard: _Guard) -> None:
        self.connection = connection
        self.stopped = False
        self._limit = limit
        self._guard = guard
        self._ends_at: float | None = None

    def run(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        if self._limit is not None:
            self._ends_at = thread_time() + self._limit
        self.check()
        connection, _running.query = self.connection, self
        connection.set_progress_handler(self._is_over, _STEPS)
        try:
            with self._guard(connection):
                return on_one_view(connection, query)
        except apsw.InterruptError:
            self.check()
            raise
        finally:
            _running.query = None
            connection.set_progress_handler(None)

    def check(self) -> None:
        """Raise what ends the query, if something does."""
        if self.stopped:
            raise _Stopped
        if self._ends_at is not None and thread_time() >= self._ends_at:
            raise _TooSlow

    def _is_over(self) -> bool:
        """Return whether SQLite should interrupt the statement."""
        return self.stopped or (self._ends_at is not None and thread_time() >= self._ends_at)


class _Running(threading.local):
    """The query that a thread runs."""

    query: _Query | None = None


_running = _Running()


def check_caller() -> None:
    """End the query of this thread here if its caller has gone, or if it takes too long.

    For work between statements, which SQLite does not interrupt. Without effect outside a query.
    """
    if _running.query is not None:
        _running.query.check()


def on_one_view(connection: apsw.Connection, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
    """Run a query on one consistent view of what is durable."""
    connection.execute("BEGIN")
    try:
        return query(connection)
    except BaseException as error:
        clear_frames(error.__traceback__)  # closes their cursors: an open one would keep this view for later queries
        raise
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def open_temporary(setup: str, readers: int) -> tuple[apsw.Connection, list[apsw.Connection]]:
    """Open a database that is deleted with the process: a connection that writes, and others that read.

    `setup` creates its tables. The files are without names once all connections have them open.
    """
    folder = Path(tempfile.mkdtemp(prefix="lavant-"))
    opened: list[apsw.Connection] = []
    try:
        for _ in range(1 + readers):
            connection = apsw.Connection(str(folder / "temporary.db"))
            opened.append(connection)
            if len(opened) == 1:
                connection.pragma("journal_mode", "WAL")
                connection.execute(setup).fetchall()
            else:
                connection.execute("PRAGMA query_only = ON").fetchall()
            connection.execute("PRAGMA synchronous = OFF").fetchall()
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # opens the files of the log
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return opened[0], opened[1:]
