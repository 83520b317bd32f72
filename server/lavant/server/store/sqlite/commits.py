"""The way of a change: decided on the event loop, made durable by the writer, then announced and answered."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import apsw

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, unavailable
from lavant.server.measures import StoreMeasures
from lavant.server.model import RunKey
from lavant.server.store.port import Notice
from lavant.server.store.sqlite.logs import Entry, Logs
from lavant.server.store.sqlite.ownership import FileLock
from lavant.server.store.sqlite.rows import Statement
from lavant.server.store.sqlite.schema import StoreMoved
from lavant.server.store.sqlite.writer import Operation, Writer
from lavant.server.store.watchers import Watchers

MAX_QUEUED_BYTES = 256 << 20


class Commits:
    """Changes in the order in which they are decided.

    Decisions stand on earlier ones that are not durable yet. If those fail, all that stand on
    them fail with the same error: an era ends, and decisions begin anew from what is durable.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        connection: apsw.Connection,
        lock: FileLock,
        logs: Logs,
        runs: Watchers[RunKey],
        feeds: Watchers[str],
        on_fatal: Callable[[str], None],
        measures: StoreMeasures,
    ) -> None:
        self._measures = measures
        self._logs = logs
        self._runs = runs
        self._feeds = feeds
        self._era = 0
        self._closed = False
        self._clock = clock
        self._queued_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._lock = lock
        self._writer = Writer(connection=connection, lock=lock, deliver=self._deliver, on_fatal=on_fatal)

    @property
    def closed(self) -> bool:
        """Whether changes are refused because the store is closing."""
        return self._closed

    def submit(
        self,
        statements: Sequence[Statement],
        *,
        entry: Entry | None = None,
        result: Any = None,
        notice: Notice | None = None,
        news: bool = False,
    ) -> "asyncio.Future[Any]":
        """Queue a change; the future gives `result` once it is durable and announced.

        `news` tells that it shows in the feed of changes. `entry` stays in memory until then.
        """
        self.check_open()
        future: asyncio.Future[Any] = self._loop.create_future()
        size = sum(len(value) for _, values in statements for value in values if isinstance(value, bytes | str))
        self._queued_bytes += size
        if entry is not None:
            entry.pending += 1
        self._writer.submit(
            Operation(
                era=self._era,
                future=future,
                statements=statements,
                result=result,
                entry=entry,
                notice=notice,
                news=news,
                size=size,
            )
        )
        return future

    def settled(self, key: RunKey) -> "asyncio.Future[None]":
        """Tell once the changes of a run that are queued now are durable, or fail as they did."""
        if self._logs.is_pending(key) and not self._closed:
            return self.submit(())
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

    def check_room(self) -> None:
        """Raise UNAVAILABLE while so much waits for the disk that nothing should be added."""
        self.check_open()
        if self._queued_bytes >= MAX_QUEUED_BYTES:
            raise unavailable("the store is behind with its writing; send it again", retry_after=1.0)

    async def close(self) -> None:
        """Commit what is queued, and refuse what comes later."""
        self._closed = True
        await self._writer.close()

    def _deliver(self, group: Sequence[Operation], error: LavantError | None) -> None:
        self._queued_bytes -= sum(operation.size for operation in group)
        if error is not None:
            self._end_era(group, error)
            return
        self._measure(group)
        for operation in group:
            self._announce(operation)
        for operation in group:
            if not operation.future.done():
                operation.future.set_result(operation.result)

    def _measure(self, group: Sequence[Operation]) -> None:
        measures, now = self._measures, self._clock.monotonic()
        measures.commits.observe(len(group))
        for operation in group:
            if operation.notice is not None and (chunk := operation.notice.chunk) is not None:
                chunk.committed_at = now
                measures.events += len(chunk.types)
                measures.bytes += len(chunk.data)

    def _announce(self, operation: Operation) -> None:
        entry = operation.entry
        if entry is None:
            return
        self._logs.settle(entry, self._clock.time_ns())
        if operation.notice is not None:
            self._runs.announce(entry.key, operation.notice)
        if operation.news:
            self._feeds.announce(entry.key.tenant)

    def _end_era(self, group: Sequence[Operation], error: LavantError) -> None:
        if group[-1].era >= self._era:
            self._era = group[-1].era + 1
            self._logs.clear()
        for operation in group:
            if not operation.future.done():
                operation.future.set_exception(error)
