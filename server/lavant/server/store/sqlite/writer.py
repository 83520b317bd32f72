"""The one thread that writes: everything that has queued goes into one commit with one fsync."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import apsw

from lavant.server.errors import LavantError, unavailable
from lavant.server.store.failpoints import failpoint
from lavant.server.store.port import Notice
from lavant.server.store.sqlite.faults import explain, is_fatal, is_full
from lavant.server.store.sqlite.logs import Entry
from lavant.server.store.sqlite.ownership import FileLock
from lavant.server.store.sqlite.rows import Statement, merged
from lavant.server.store.sqlite.schema import BUSY_TIMEOUT_MS, StoreMoved, StoreUnusable
from lavant.server.store.sqlite.trouble import Trouble

MAX_GROUP_OPERATIONS = 1_000
MAX_GROUP_BYTES = 16 << 20
_CHECKPOINT_BYTES = 8 << 20
_OPERATION_BYTES = 8_192  # what an operation writes beside its events, roughly: two pages
_RESTART_PAGES = 32_000
_WATCH_INTERVAL = 0.25  # seconds between two looks at the store's files while nothing is written

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class Operation:
    """A change that was decided on, what it is to be answered with, and whom it is news for.

    An operation of an era that failed is refused: it stood on changes that were lost.
    """

    era: int
    future: "asyncio.Future[Any]"
    statements: Sequence[Statement] = ()
    result: Any = None
    entry: Entry | None = None
    notice: Notice | None = None
    news: bool = False
    size: int = field(default=0)


Deliver = Callable[[Sequence[Operation], LavantError | None], None]


class Writer:
    """Commits operations in the order in which they are submitted, as many at once as have queued.

    Each group is delivered to the event loop once it is durable, or with the error for which
    nothing of it is. After an error all operations of its era are refused with the same one.

    `on_fatal` is told when the file can no longer be trusted. It should not return; if it
    does, nothing is written any more.
    """

    def __init__(
        self, *, connection: apsw.Connection, lock: FileLock, deliver: Deliver, on_fatal: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._deliver = deliver
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Operation | None] = SimpleQueue()
        self._failed_era = -1
        self._failure: LavantError | None = None
        self._dead = False
        self._wal_bytes = self._wal_pages = 0
        self._trouble = Trouble()
        connection.wal_autocheckpoint(0)
        self._thread = Thread(target=self._run, name="lavant-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> None:
        """Queue an operation."""
        self._queue.put(operation)

    async def close(self) -> None:
        """Commit what is queued, put it into the main file, and close the connection."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            self._die(error)

    def _serve(self) -> None:
        while group := self._next_group():
            refused = [operation for operation in group if operation.era <= self._failed_era]
            if refused:
                self._hand_over(refused, self._failure)
                group = [operation for operation in group if operation.era > self._failed_era]
            if group:
                self._hand_over(group, self._commit(group))
                self._checkpoint(group)
        self._finish()

    def _next_group(self) -> list[Operation]:
        group: list[Operation] = []
        size = 0
        operation = self._next()
        while operation is not None:
            group.append(operation)
            size += operation.size
            if len(group) >= MAX_GROUP_OPERATIONS or size >= MAX_GROUP_BYTES:
                return group
            try:
                operation = self._queue.get_nowait()
            except Empty:
                return group
        if group:
            self._queue.put(None)
        return group

    def _next(self) -> Operation | None:
        """Wait for an operation; meanwhile look after the store's files, so that an idle server notices as well."""
        while True:
            with suppress(Empty):
                return self._queue.get(timeout=_WATCH_INTERVAL)
            self._check_files()

    def _check_files(self) -> bool:
        """Return whether what was written is in the file at the store's path; if not, the process ends."""
        if not self._dead:
            try:
                self._lock.check()
            except StoreMoved as error:
                self._rescue_log()
                self._die(error)
        return not self._dead

    def _rescue_log(self) -> None:
        """Put what is in a write-ahead log that was deleted into the store, before the last who has it open ends."""
        if self._lock.has_lost_log():
            with suppress(apsw.Error):
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)

    def _commit(self, group: Sequence[Operation]) -> LavantError | None:
        if self._dead:
            return self._failure
        execute = self._connection.execute
        size = sum(operation.size for operation in group)
        try:
            statements = merged(chain.from_iterable(operation.statements for operation in group))
            if len(statements) > 1:
                statements = [("BEGIN IMMEDIATE", ()), *statements, ("COMMIT", ())]
            failpoint("before_commit")
            for sql, values in statements:
                execute(sql, values)
        except Exception as error:
            self._fail(group[-1].era, size, error)
            return self._failure
        self._trouble.written(size)
        failpoint("after_commit")
        return None if self._check_files() else self._failure

    def _fail(self, era: int, size: int, error: Exception) -> None:
        self._failed_era = era
        if is_fatal(error, self._connection):
            self._die(error)
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as rollback_error:
            self._die(rollback_error)
            return
        self._failure = explain(error)
        self._trouble.refused(error, size)
        if is_full(error):
            self._move_wal(apsw.SQLITE_CHECKPOINT_PASSIVE)  # this may make room

    def _die(self, error: Exception) -> None:
        told = str(error) if isinstance(error, StoreUnusable) else f"{type(error).__name__}: {error}"
        message = f"the store's file can no longer be trusted: {told}; the server ends"
        logger.critical(message)
        self._dead = True
        self._failure = unavailable("the store has failed and is being recovered")
        self._on_fatal(message)

    def _hand_over(self, group: Sequence[Operation], error: LavantError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, group, error)
        except RuntimeError:
            logger.warning("the event loop ended before the store was closed")

    def _checkpoint(self, group: Sequence[Operation]) -> None:
        self._wal_bytes += sum(_OPERATION_BYTES + operation.size for operation in group)
        if self._dead or self._wal_bytes < _CHECKPOINT_BYTES:
            return
        grown = self._wal_pages >= _RESTART_PAGES
        self._move_wal(apsw.SQLITE_CHECKPOINT_RESTART if grown else apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _move_wal(self, mode: int) -> None:
        self._wal_bytes = 0
        try:
            self._connection.set_busy_timeout(0)  # a reader may take its time; nobody waits for it here
            self._wal_pages, _ = self._connection.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.FullError):
            logger.debug("the write-ahead log could not be moved into the main file yet")
        except apsw.Error as error:
            if is_fatal(error, self._connection):
                self._die(error)
            logger.debug("the write-ahead log could not be read", exc_info=error)
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)

    def _finish(self) -> None:
        if self._check_files():
            self._move_wal(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close(force=self._dead)
