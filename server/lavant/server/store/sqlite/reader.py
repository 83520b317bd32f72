"""Reading: a few threads, each with its own connection and one short transaction at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import apsw

from lavant.server.errors import unavailable
from lavant.server.store.sqlite.faults import explained
from lavant.server.store.sqlite.schema import connect

_Answer = TypeVar("_Answer")


class Reader:
    """Answers queries, each from one consistent view of what is durable."""

    def __init__(self, path: Path, threads: int, *, max_waiting: int | None = None) -> None:
        """Open a connection for each thread at once: later there may be no file descriptor left.

        `max_waiting` bounds how many queries may wait or be under way; None: any number.
        """
        self._max_waiting = max_waiting
        self._waiting = 0
        self._connections: list[apsw.Connection] = []
        self._idle: SimpleQueue[apsw.Connection] = SimpleQueue()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lavant-reader")
        try:
            for _ in range(threads):
                self._connections.append(connect(path, read_only=True))
                self._idle.put(self._connections[-1])
        except BaseException:
            self._close_connections()
            raise

    async def ask(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        """Run a query in a thread; one that is cancelled while it waits is never run.

        Raises DATA_LOSS if the file is damaged there, UNAVAILABLE if too many queries wait already.
        """
        if self._max_waiting is not None and self._waiting >= self._max_waiting:
            raise unavailable(f"{self._waiting} queries wait for the store already; ask again later")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, query)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Finish the queries under way, and close the connections."""
        await asyncio.to_thread(self._pool.shutdown)
        self._close_connections()

    def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()

    def _ask(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        connection = self._idle.get()
        try:
            with explained(connection):
                connection.execute("BEGIN")
                try:
                    return query(connection)
                finally:
                    if connection.in_transaction:
                        connection.execute("COMMIT")
        finally:
            self._idle.put(connection)
