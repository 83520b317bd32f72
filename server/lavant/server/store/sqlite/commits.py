"""Commits: changes decided on the event loop, made durable by the writer, then announced and answered."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, run_not_found, unavailable
from lavant.server.metrics import StoreMetrics
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState
from lavant.server.store.backlog import Backlog
from lavant.server.store.log_cache import LogCache
from lavant.server.store.port import Notice
from lavant.server.store.sqlite.files import FileLock
from lavant.server.store.sqlite.queries import find_log
from lavant.server.store.sqlite.rows import Statement, Write
from lavant.server.store.sqlite.schema import StoreMoved
from lavant.server.store.sqlite.writer import Operation, Writer
from lavant.server.store.stored_bytes import StoredBytes
from lavant.server.store.watchers import FeedWatchers, Watchers


class Entry:
    """Row and log of a run. `log` is None once the run is deleted.

    `pending` counts queued changes; `settled_ns` is when a change last became durable, in wall time.
    """

    __slots__ = ("key", "log", "pending", "row", "settled_ns")

    def __init__(self, row: int, key: RunKey, log: LogState) -> None:
        self.row = row
        self.key = key
        self.log: LogState | None = log
        self.pending = 0
        self.settled_ns = 0


def is_idle(entry: Entry) -> bool:
    """Return whether no changes of a run are queued."""
    return not entry.pending


class Logs:
    """Cache of the most recently used logs; others are read from the file, which blocks for some 10 µs.

    A log with queued changes is never evicted, since the file does not contain them yet.
    """

    def __init__(self, connection: apsw.Connection, cache: "LogCache[Entry] | None" = None) -> None:
        self._connection = connection
        self._entries = cache or LogCache(is_idle)

    def find(self, key: RunKey) -> tuple[Entry, LogState] | None:
        """Return a run's entry and log; None if the run does not exist or is deleted."""
        entry = self._entries.get(key)
        if entry is None:
            found = find_log(self._connection, key)
            if found is None:
                return None
            entry = Entry(found[0], key, found[1])
            self.add(entry)
        return None if entry.log is None else (entry, entry.log)

    def get(self, key: RunKey) -> tuple[Entry, LogState]:
        """Return a run's entry and log, or raise RUN_NOT_FOUND."""
        found = self.find(key)
        if found is None:
            raise run_not_found(key.run_id)
        return found

    def is_pending(self, key: RunKey) -> bool:
        """Return whether changes of a run are queued."""
        entry = self._entries.peek(key)
        return entry is not None and entry.pending > 0

    def add(self, entry: Entry) -> None:
        """Add a log, and evict the least recently used ones if there are too many or they are too large."""
        self._entries.add(entry.key, entry, 0 if entry.log is None else entry.log.weight)

    def settle(self, entry: Entry, now_ns: int) -> None:
        """Decrease the count of queued changes; a log that cannot grow any more is evicted at zero."""
        entry.pending -= 1
        entry.settled_ns = now_ns
        over = entry.log is None or entry.log.sealed
        if over and not entry.pending:
            self._entries.remove(entry.key, entry)
        elif entry.log is not None:
            self._entries.weigh(entry.key, entry, entry.log.weight)

    def clear(self) -> None:
        """Evict all logs: from now on the file is the only truth."""
        self._entries.clear()


class Commits:
    """Queue of changes: those of a tenant in the order in which they are decided, tenants in turn.

    A decision may depend on earlier ones that are not durable yet. If one of those fails, all that depend on it
    fail with the same error: their generation ends, and the next one decides from what is durable.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        connection: apsw.Connection,
        lock: FileLock,
        logs: Logs,
        runs: Watchers[RunKey],
        feeds: FeedWatchers,
        on_fatal: Callable[[str], None],
        metrics: StoreMetrics,
        stored_bytes: StoredBytes,
    ) -> None:
        self._metrics = metrics
        self._stored_bytes = stored_bytes
        self._logs = logs
        self._runs = runs
        self._feeds = feeds
        self._generation = 0
        self._closed = False
        self._clock = clock
        self._backlog = Backlog()
        self._loop = asyncio.get_running_loop()
        self._lock = lock
        self._writer = Writer(connection=connection, lock=lock, deliver=self._deliver, on_fatal=on_fatal)

    @property
    def closed(self) -> bool:
        """Whether changes are refused because the store is closing."""
        return self._closed

    def submit(
        self,
        writes: Sequence[Write],
        *,
        entry: Entry | None = None,
        result: Any = None,
        notice: Notice | None = None,
        news: bool = False,
        tenant: str = "",
    ) -> "asyncio.Future[Any]":
        """Queue a change; the future returns `result` once the change is durable and announced.

        `news`: whether it appears in the feed of changes. `entry` stays in memory until then; without one, `tenant`
        says after whose changes this one comes.
        """
        self.check_open()
        future: asyncio.Future[Any] = self._loop.create_future()
        rows: Iterable[Sequence[Any]] = (write.values if isinstance(write, Statement) else write for write in writes)
        size = sum(len(value) for row in rows for value in row if isinstance(value, bytes | str))
        tenant = tenant if entry is None else entry.key.tenant
        self._backlog.add(tenant, size)
        if entry is not None:
            entry.pending += 1
        self._writer.submit(
            Operation(
                generation=self._generation,
                tenant=tenant,
                future=future,
                writes=writes,
                result=result,
                entry=entry,
                notice=notice,
                news=news,
                size=size,
            )
        )
        return future

    def settled(self, key: RunKey) -> "asyncio.Future[None]":
        """Return a future that is done once the run's queued changes are durable, or fails with their error."""
        if self._logs.is_pending(key) and not self._closed:
            return self.submit((), tenant=key.tenant)
        nothing: asyncio.Future[None] = self._loop.create_future()
        try:
            self._lock.check()
        except StoreMoved:  # the writer notices as well, and ends the process
            nothing.set_exception(unavailable("the store's file is gone"))
        else:
            nothing.set_result(None)
        return nothing

    def check_open(self) -> None:
        """Raise UNAVAILABLE once the store is closing."""
        if self._closed:
            raise unavailable("the store is closed")

    def check_room(self, tenant: str) -> None:
        """Raise UNAVAILABLE while too many changes of the tenant wait for the disk."""
        self.check_open()
        if self._backlog.is_full(tenant):
            raise unavailable("the store is behind with its writing; send it again", retry_after=1.0)

    async def close(self) -> None:
        """Commit queued changes, and refuse later ones."""
        self._closed = True
        await self._writer.close()

    def _deliver(self, group: Sequence[Operation], error: ServiceError | None) -> None:
        for operation in group:
            self._backlog.remove(operation.tenant, operation.size)
        if error is not None:
            self._end_generation(group, error)
            return
        self._count(group)
        for operation in group:
            self._announce(operation)
        for operation in group:
            if not operation.future.done():
                operation.future.set_result(operation.result)

    def _count(self, group: Sequence[Operation]) -> None:
        metrics, now = self._metrics, self._clock.monotonic()
        metrics.commits.observe(len(group))
        for operation in group:
            notice, entry = operation.notice, operation.entry
            if notice is not None and entry is not None and (chunk := notice.chunk) is not None:
                chunk.committed_at = now
                metrics.stored(entry.key.tenant, len(chunk.types), len(chunk.data))
                self._stored_bytes.add(entry.key.tenant, len(chunk.data))

    def _announce(self, operation: Operation) -> None:
        entry = operation.entry
        if entry is None:
            return
        self._logs.settle(entry, self._clock.time_ns())
        if operation.notice is not None:
            self._runs.announce(entry.key, operation.notice)
        if operation.news:
            self._feeds.announce(entry.key.tenant)

    def _end_generation(self, group: Sequence[Operation], error: ServiceError) -> None:
        generation = max(operation.generation for operation in group)
        if generation >= self._generation:
            self._generation = generation + 1
            self._logs.clear()
        for operation in group:
            if not operation.future.done():
                operation.future.set_exception(error)
