"""The engine: what the port asks for, put together from the parts of this package."""

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from lavant.server.clock import Clock
from lavant.server.measures import StoreMeasures
from lavant.server.model import RunKey
from lavant.server.store import appending
from lavant.server.store.chunk import Chunk
from lavant.server.store.leases import LEASE_TTL, ProcessLeases
from lavant.server.store.port import Leases, Notice, Opening, RunChange, RunPage, RunQuery, StoreIdentity, Watch
from lavant.server.store.sqlite import queries
from lavant.server.store.sqlite.commits import Commits
from lavant.server.store.sqlite.decisions import Decisions
from lavant.server.store.sqlite.faults import exit_process
from lavant.server.store.sqlite.logs import Logs
from lavant.server.store.sqlite.ownership import FileLock
from lavant.server.store.sqlite.reader import Reader
from lavant.server.store.sqlite.schema import IN_MEMORY, Meta, check_sqlite_version, connect, open_file
from lavant.server.store.watchers import Watchers
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run

_READ_THREADS = 3
_LISTS_WAITING = 512  # each may look at as many runs as a page is bounded to
_LIST_THREADS = 2  # of their own, so that slow lists do not hold up streams that catch up
_Answer = TypeVar("_Answer")


class SQLiteEngine:
    """Stores runs in one SQLite file that this process owns. See `port.Engine` for the guarantees.

    `Decisions` decides on the event loop; a thread makes the changes durable in the same order, as
    many at once as have queued. Reads see only what is durable.
    """

    def __init__(
        self,
        *,
        path: Path,
        clock: Clock,
        lock: FileLock,
        connection: apsw.Connection,
        meta: Meta,
        on_fatal: Callable[[str], None] = exit_process,
        lease_ttl: float = LEASE_TTL,
        measures: StoreMeasures | None = None,
    ) -> None:
        self._clock = clock
        self._lock = lock
        self._identity = meta.identity
        self._opening = meta.opening
        self._leases = ProcessLeases(clock=clock, incarnation=meta.opening.incarnation, ttl=lease_ttl)
        self._lookups = connect(path, read_only=True)
        self._logs = Logs(self._lookups)
        self._runs: Watchers[RunKey] = Watchers()
        self._feeds: Watchers[str] = Watchers()
        self._reader = Reader(path, _READ_THREADS)
        self._lists = Reader(path, _LIST_THREADS, max_waiting=_LISTS_WAITING)
        self._commits = Commits(
            clock=clock,
            connection=connection,
            lock=lock,
            logs=self._logs,
            runs=self._runs,
            feeds=self._feeds,
            on_fatal=on_fatal,
            measures=measures or StoreMeasures(),
        )
        self._decisions = Decisions(
            clock=clock,
            meta=meta,
            logs=self._logs,
            commits=self._commits,
            reader=self._reader,
            lookups=self._lookups,
        )
        self._decisions.purge()

    @classmethod
    async def open(
        cls,
        path: Path | str,
        clock: Clock,
        *,
        on_fatal: Callable[[str], None] = exit_process,
        lease_ttl: float = LEASE_TTL,
        max_bytes: int | None = None,
        measures: StoreMeasures | None = None,
    ) -> "SQLiteEngine":
        """Open a store, or create it with the folders above it; takes time in proportion to its size.

        `max_bytes` bounds the main file. `on_fatal` must end the process; see `Writer`. Raises
        StoreLocked, StoreDamaged or StoreUnusable.
        """
        check_sqlite_version()
        path = Path(path)
        lock = FileLock(path, create=True)
        try:
            if os.fspath(path) != IN_MEMORY:
                lock.watch()
            connection, meta = await asyncio.to_thread(open_file, path, clock.time_ns())
            lock.watch_companions()
            if max_bytes is not None:
                connection.pragma("max_page_count", max(1, max_bytes // connection.pragma("page_size")))
            return cls(
                path=path,
                clock=clock,
                lock=lock,
                connection=connection,
                meta=meta,
                on_fatal=on_fatal,
                lease_ttl=lease_ttl,
                measures=measures,
            )
        except BaseException:
            lock.release()
            raise

    @property
    def identity(self) -> StoreIdentity:
        """What resume tokens are bound to."""
        return self._identity

    @property
    def opening(self) -> Opening:
        """This opening of the store."""
        return self._opening

    @property
    def leases(self) -> Leases:
        """The consumers' places."""
        return self._leases

    async def create_run(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings, or answer with the stored one if they are equal; else RUN_EXISTS."""
        return await self._decisions.create(key, run)

    async def get_run(self, key: RunKey) -> Run:
        """Tell how a run stands."""
        return self._durable(key).run

    async def list_runs(self, query: RunQuery, before: int | None = None) -> RunPage:
        """List runs, the newest first, those created before a position of an earlier page."""
        self._commits.check_open()
        return await self._lists.ask(partial(queries.list_runs, query=query, before=before))

    async def list_changes(
        self, query: RunQuery, after: int = 0, until: int | None = None
    ) -> tuple[Sequence[RunChange], int]:
        """List runs by their last change of state, the oldest first, those behind a position and up to another."""
        self._commits.check_open()
        return await self._lists.ask(partial(queries.list_changes, query=query, after=after, until=until))

    async def last_change(self, tenant: str, after: int = 0) -> int:
        """Tell the position of a tenant's last change, and not before another position."""
        self._commits.check_open()
        return max(after, await self._lists.ask(partial(queries.newest_change, tenant=tenant)))

    def watch_changes(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change that `list_changes` would tell of."""
        return self._feeds.add(tenant, callback)

    def append(self, key: RunKey, batch: ProducerBatch) -> "asyncio.Future[BatchReceipt]":
        """Append a batch by the rules of `appending`; the receipt comes once it is durable."""
        return self._decisions.append(key, batch)

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on."""
        query = partial(queries.read_chunks, key=key, after=after, max_bytes=max_bytes, created_ns=created_ns)
        return await self._ask(query)

    def watch(self, key: RunKey, callback: Callable[[Notice], None]) -> Watch:
        """Call back after each durable change of a run, existing or yet to be created."""
        return self._runs.add(key, callback)

    async def cancel_run(self, key: RunKey, reason: str) -> Run:
        """Remember that somebody wants the run to stop, and tell its watchers; the first reason stays."""
        return await self._decisions.cancel(key, reason)

    async def pending_cancel(self, key: RunKey) -> str | None:
        """Tell the reason of a cancel request that the run has not ended after; None: there is none."""
        log = self._durable(key)
        return None if log.sealed else log.cancel_reason

    async def delete_run(self, key: RunKey) -> None:
        """Delete an ended run, or raise RUN_NOT_ENDED; its log goes soon after, piece by piece."""
        await self._decisions.delete(key)

    async def abandon_silent_runs(self, silent_since_ns: int) -> Sequence[RunKey]:
        """End as ABANDONED every run whose producer kept silent for longer than its producer_timeout."""
        now = self._clock.time_ns()
        silent = await self._ask(partial(queries.list_silent, silent_since_ns=silent_since_ns, now_ns=now))
        return await self._decisions.abandon(silent, silent_since_ns, now)

    async def close(self) -> None:
        """Commit what is queued and let go of the store; harmless when repeated."""
        if self._commits.closed:
            return
        await self._commits.close()
        await self._decisions.finish()
        await self._reader.close()
        await self._lists.close()
        self._lookups.close()
        self._lock.release()

    def _durable(self, key: RunKey) -> appending.LogState:
        self._commits.check_open()
        return queries.find_log(self._lookups, key)

    async def _ask(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        self._commits.check_open()
        return await self._reader.ask(query)
