"""Writer thread: all changes that are queued go into one commit with one fsync."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

import apsw

from lavant.server.errors import ServiceError, unavailable
from lavant.server.store.failpoints import failpoint
from lavant.server.store.port import Notice
from lavant.server.store.sqlite.failures import Trouble, explain, is_fatal, is_full
from lavant.server.store.sqlite.files import FileLock
from lavant.server.store.sqlite.rows import Write, merged
from lavant.server.store.sqlite.schema import BUSY_TIMEOUT_MS, StoreMoved, StoreUnusable

if TYPE_CHECKING:
    from lavant.server.store.sqlite.commits import Entry

# Of one commit, and of a tenant's part in it: another tenant's commit waits for one of these at most.
MAX_GROUP_OPERATIONS, MAX_TENANT_OPERATIONS = 1_000, 250
MAX_GROUP_BYTES, MAX_TENANT_BYTES = 4 << 20, 2 << 20
_CHECKPOINT_BYTES = 8 << 20
_OPERATION_BYTES = 8_192  # estimate of what an operation writes besides its events: two pages
_RESTART_PAGES = 32_000
_WATCH_INTERVAL = 0.25  # seconds between two checks of the store's files while nothing is written

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class Operation:
    """Decided change, with the result for its caller and the watchers to notify.

    An operation of a generation that failed is refused: it depended on changes that were lost.
    """

    generation: int
    tenant: str
    future: "asyncio.Future[Any]"
    writes: Sequence[Write] = ()
    result: Any = None
    entry: "Entry | None" = None
    notice: Notice | None = None
    news: bool = False
    size: int = field(default=0)


Deliver = Callable[[Sequence[Operation], ServiceError | None], None]


class Writer:
    """Writer that commits operations: those of a tenant in the order of submission, as many as possible at once.

    Every commit has a part of each tenant whose operations are queued, up to a bound. Each group is delivered to the
    event loop once it is durable, or with the error for which none of it was stored. After an error all operations of
    its generation are refused with the same one.

    `on_fatal` is called when the file can no longer be trusted. It should not return; if it does, nothing is
    written any more.
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
        self._waiting: dict[str, deque[Operation]] = {}  # taken from the queue, by tenant
        self._is_closing = False
        self._failed_generation = -1
        self._failure: ServiceError | None = None
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
        """Commit queued operations, move the write-ahead log into the main file, and close the connection."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            self._die(error)

    def _serve(self) -> None:
        while group := self._next_group():
            refused = [operation for operation in group if operation.generation <= self._failed_generation]
            if refused:
                self._hand_over(refused, self._failure)
                group = [operation for operation in group if operation.generation > self._failed_generation]
            if group:
                self._hand_over(group, self._commit(group))
                self._checkpoint(group)
        self._finish()

    def _next_group(self) -> list[Operation]:
        """Return the operations of the next commit, once there are any; none at the end."""
        if not self._waiting and not self._is_closing:
            self._sort(self._next())
        with suppress(Empty):
            while True:
                self._sort(self._queue.get_nowait())
        group: list[Operation] = []
        tenants = len(self._waiting)
        if tenants:
            most = min(MAX_TENANT_OPERATIONS, MAX_GROUP_OPERATIONS // tenants)
            size = min(MAX_TENANT_BYTES, MAX_GROUP_BYTES // tenants)
            for tenant in tuple(self._waiting):
                group += self._part(tenant, most, size)
        return group

    def _sort(self, operation: Operation | None) -> None:
        if operation is None:
            self._is_closing = True
        else:
            self._waiting.setdefault(operation.tenant, deque()).append(operation)

    def _part(self, tenant: str, most: int, size: int) -> Iterator[Operation]:
        """Take a tenant's next operations, at least one, up to a number and to a size in bytes."""
        queued = self._waiting[tenant]
        while queued:
            size -= queued[0].size
            most -= 1
            yield queued.popleft()
            if most <= 0 or size <= 0:
                break
        if not queued:
            del self._waiting[tenant]

    def _next(self) -> Operation | None:
        """Wait for an operation; meanwhile check the store's files, so that an idle server notices changes too."""
        while True:
            with suppress(Empty):
                return self._queue.get(timeout=_WATCH_INTERVAL)
            self._check_files()

    def _check_files(self) -> bool:
        """Return whether the writes are in the file at the store's path; if not, end the process."""
        if not self._dead:
            try:
                self._lock.check()
            except StoreMoved as error:
                self._rescue_log()
                self._die(error)
        return not self._dead

    def _rescue_log(self) -> None:
        """Move a deleted write-ahead log into the store, before the last process that has it open ends."""
        if self._lock.has_lost_log():
            with suppress(apsw.Error):
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)

    def _commit(self, group: Sequence[Operation]) -> ServiceError | None:
        if self._dead:
            return self._failure
        execute = self._connection.execute
        size = sum(operation.size for operation in group)
        try:
            statements = merged(chain.from_iterable(operation.writes for operation in group))
            grouped = len(statements) > 1
            failpoint("before_commit")
            if grouped:
                execute("BEGIN IMMEDIATE")
            for sql, values in statements:
                execute(sql, values)
            if grouped:
                execute("COMMIT")
        except Exception as error:
            self._fail(max(operation.generation for operation in group), size, error)
            return self._failure
        self._trouble.written(size)
        failpoint("after_commit")
        return None if self._check_files() else self._failure

    def _fail(self, generation: int, size: int, error: Exception) -> None:
        self._failed_generation = generation
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
            self._move_wal(apsw.SQLITE_CHECKPOINT_PASSIVE)  # this may free space

    def _die(self, error: Exception) -> None:
        told = str(error) if isinstance(error, StoreUnusable) else f"{type(error).__name__}: {error}"
        message = f"the store's file can no longer be trusted: {told}; the server ends"
        logger.critical(message)
        self._dead = True
        self._failure = unavailable("the store has failed and is being recovered")
        self._on_fatal(message)

    def _hand_over(self, group: Sequence[Operation], error: ServiceError | None) -> None:
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
            self._connection.set_busy_timeout(0)  # do not wait for slow readers here
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
