"""Reading: a few threads, each with its own connection and one short transaction at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import apsw

from lavant.server.store.sqlite.faults import explained
from lavant.server.store.sqlite.schema import connect

_Answer = TypeVar("_Answer")


class Reader:
    """Answers queries, each from one consistent view of what is durable."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open a connection for each thread at once: later there may be no file descriptor left."""
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
        """Run a query in a thread; raises DATA_LOSS if the file is damaged there."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, query)

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
