"""Reading: a few threads, each with its own connection and one short transaction at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import TypeVar

import apsw

from lavant.server.store.sqlite.faults import explained
from lavant.server.store.sqlite.schema import connect

_THREADS = 3
_Answer = TypeVar("_Answer")


class Reader:
    """Answers queries, each from one consistent view of what is durable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections: list[apsw.Connection] = []
        self._thread = local()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="lavant-reader")

    async def ask(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        """Run a query in a thread; raises DATA_LOSS if the file is damaged there."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, query)

    async def close(self) -> None:
        """Finish the queries under way, and close the connections."""
        await asyncio.to_thread(self._pool.shutdown)
        for connection in self._connections:
            connection.close()

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._thread.connection = connect(self._path, read_only=True)
            self._connections.append(connection)
        return connection

    def _ask(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        with explained():
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
