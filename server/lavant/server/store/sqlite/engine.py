"""Engine on SQLite: the port's methods, implemented with the other modules of this package."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, run_not_found
from lavant.server.metrics import StoreMetrics
from lavant.server.model import RunKey
from lavant.server.store import listing
from lavant.server.store.appending import LogState
from lavant.server.store.chunk import Chunk
from lavant.server.store.leases import LEASE_TTL, ProcessLeases
from lavant.server.store.ownership import NOBODY, Owner
from lavant.server.store.port import Leases, ListedRun, Notice, Opening, RunPage, RunQuery, StoreIdentity, Watch
from lavant.server.store.reads import on_one_view
from lavant.server.store.restrictions import Restriction
from lavant.server.store.runs import notice_of
from lavant.server.store.sqlite import queries
from lavant.server.store.sqlite.commits import Commits, Logs
from lavant.server.store.sqlite.decisions import Decisions
from lavant.server.store.sqlite.failures import exit_process, explained
from lavant.server.store.sqlite.files import FileLock
from lavant.server.store.sqlite.schema import IN_MEMORY, Meta, check_sqlite_version, connect, open_file
from lavant.server.store.stored_bytes import StoredBytes
from lavant.server.store.token_keys import TokenKey
from lavant.server.store.watchers import CallbackWatch, FeedWatchers, Watchers
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run

_READ_THREADS = 3
_QUICK_LISTS = 2  # threads, apart from those of logs, so that lists do not delay streams that catch up
_SLOW_LISTS = max(1, min(4, (os.cpu_count() or 1) - 1))  # threads; one CPU is left to the event loop
_LISTS_WAITING = 512  # of one tenant
_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)


class SQLiteEngine:
    """Engine that stores runs in one SQLite file, owned by this process. See `port.Engine` for the guarantees.

    `Decisions` decides on the event loop; a thread makes the changes durable in the same order, all that are
    queued in one commit. Reads see only what is durable.
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
        metrics: StoreMetrics | None = None,
    ) -> None:
        self._clock = clock
        self._lock = lock
        self._identity = meta.identity
        self._opening = meta.opening
        self._leases = ProcessLeases(clock=clock, incarnation=meta.opening.incarnation, ttl=lease_ttl)
        self._lookups = connect(path, read_only=True)
        self._logs = Logs(self._lookups)
        self._runs: Watchers[RunKey] = Watchers()
        self._feeds = FeedWatchers()
        self._stored_bytes = StoredBytes(meta.stored_bytes)
        self._reader = queries.open_threads(path, _READ_THREADS, name="lavant-reader")
        self._lists = queries.open_threads(
            path, _QUICK_LISTS, slow=_SLOW_LISTS, name="lavant-lists", max_waiting=_LISTS_WAITING
        )
        self._commits = Commits(
            clock=clock,
            connection=connection,
            lock=lock,
            logs=self._logs,
            runs=self._runs,
            feeds=self._feeds,
            on_fatal=on_fatal,
            metrics=metrics or StoreMetrics(),
            stored_bytes=self._stored_bytes,
        )
        self._decisions = Decisions(
            clock=clock,
            meta=meta,
            logs=self._logs,
            commits=self._commits,
            reader=self._reader,
            lookups=self._lookups,
            stored_bytes=self._stored_bytes,
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
        metrics: StoreMetrics | None = None,
        own_key: bool = True,
    ) -> "SQLiteEngine":
        """Open a store, or create it with its parent folders; takes time in proportion to its size.

        A new store gets a key that signs tokens, if it is to have an `own_key`. `max_bytes` bounds the main file.
        `on_fatal` must end the process; see `Writer`. Raises StoreLocked, StoreDamaged or StoreUnusable.
        """
        check_sqlite_version()
        path = Path(path)
        lock = FileLock(path, create=True)
        try:
            if os.fspath(path) != IN_MEMORY:
                lock.watch()
            connection, meta = await asyncio.to_thread(open_file, path, clock.time_ns(), own_key=own_key)
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
                metrics=metrics,
            )
        except BaseException:
            lock.release()
            raise

    @property
    def identity(self) -> StoreIdentity:
        """Identity of the store, to which resume tokens are bound."""
        return self._identity

    async def token_keys(self) -> tuple[TokenKey, ...]:
        """Return the keys of the store: this process owns it, so that nobody has rotated them."""
        return self._identity.keys

    @property
    def opening(self) -> Opening:
        """Number of this opening of the store."""
        return self._opening

    @property
    def leases(self) -> Leases:
        """Leases of consumers."""
        return self._leases

    async def create_run(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings. Returns the stored run if its settings are equal; else raises RUN_EXISTS."""
        return await self._decisions.create(key, run)

    async def get_run(self, key: RunKey) -> Run:
        """Return a run, or raise RUN_NOT_FOUND."""
        if (run := await self.find_run(key)) is None:
            raise run_not_found(key.run_id)
        return run

    async def find_run(self, key: RunKey) -> Run | None:
        """Return a run; None if there is no such run."""
        self._commits.check_open()
        return queries.find_run(self._lookups, key)

    async def list_runs(self, query: RunQuery, before: int | None = None) -> RunPage:
        """List runs, the newest first, those created before a position of an earlier page."""
        self._commits.check_open()
        return await self._lists.ask(partial(queries.list_runs, query=query, before=before))

    async def list_changes(
        self, query: RunQuery, after: int = 0, until: int | None = None
    ) -> tuple[Sequence[ListedRun], int]:
        """List runs by their last change of state, the oldest first: changes after a position and up to another."""
        self._commits.check_open()
        return await self._lists.ask(partial(queries.list_changes, query=query, after=after, until=until))

    async def list_deletions(
        self, tenant: str, after: int, until: int, within: Restriction | None = None
    ) -> Sequence[str]:
        """List the IDs of runs that were deleted after a position of the feed of changes and up to another."""
        self._commits.check_open()
        query = partial(queries.list_deletions, tenant=tenant, after=after, until=until, within=within)
        return await self._lists.ask(query)

    async def last_change(self, tenant: str, after: int = 0) -> int:
        """Return the position of a tenant's last change, never one before `after`."""
        self._commits.check_open()
        return max(after, await self._lists.ask(partial(queries.newest_change, tenant=tenant)))

    def watch_changes(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change that `list_changes` would report."""
        return self._feeds.add(tenant, callback)

    async def list_tenants(self) -> Sequence[str]:
        """List the tenants that have runs, or whose deletions are kept, in the order of their names."""
        return await self._ask(listing.list_tenants)

    def watch_tenants(self, callback: Callable[[str], None]) -> Watch:
        """Call back with the tenant after each change that `list_changes` would report, of any tenant."""
        return self._feeds.add_to_all(callback)

    async def label_keys(self, tenant: str, limit: int) -> Sequence[str]:
        """List the keys that labels of a tenant's runs have, up to a number of them."""
        return await self._ask(partial(listing.label_keys, tenant=tenant, limit=limit))

    def stored_bytes(self, tenant: str) -> int:
        """Return the bytes of the events of all of a tenant's runs."""
        return self._stored_bytes.of(tenant)

    def append(
        self, key: RunKey, batch: ProducerBatch, owner: Owner = NOBODY, within: Restriction | None = None
    ) -> "asyncio.Future[BatchReceipt]":
        """Append a batch by the rules of `appending`; the future returns the receipt once the batch is durable."""
        return self._decisions.append(key, batch, owner, within)

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on.

        A few of them are read on the event loop, as `get_run` does: a thread would take longer to wake up.
        """
        self._commits.check_open()
        small = partial(queries.read_small, key=key, after=after, max_bytes=max_bytes, created_ns=created_ns)
        with explained(self._lookups):
            chunks = on_one_view(self._lookups, small)
        if chunks is not None:
            return chunks
        query = partial(queries.read_chunks, key=key, after=after, max_bytes=max_bytes, created_ns=created_ns)
        return await self._ask(query)

    def watch(self, key: RunKey, callback: Callable[[Notice], None]) -> Watch:
        """Call back with the snapshot of a run, then after each durable change."""
        watch = self._runs.add(key, callback, begun=False)
        asyncio.get_running_loop().call_soon(self._begin, watch)
        return watch

    async def cancel_run(self, key: RunKey, reason: str, within: Restriction | None = None) -> Run:
        """Record a request to cancel a run, and notify its watchers; the first reason stays."""
        return await self._decisions.cancel(key, reason, within)

    async def delete_run(self, key: RunKey, within: Restriction | None = None) -> None:
        """Delete an ended run, or raise RUN_NOT_ENDED; its log is deleted soon after, in small parts."""
        await self._decisions.delete(key, within)

    async def abandon_silent_runs(self, silent_since_ns: int) -> Sequence[RunKey]:
        """End as ABANDONED every run whose producers sent no batch for longer than its producer_timeout."""
        now = self._clock.time_ns()
        silent = await self._ask(partial(queries.list_silent, silent_since_ns=silent_since_ns, now_ns=now))
        return await self._decisions.abandon(silent, silent_since_ns, now)

    async def close(self) -> None:
        """Commit queued changes and release the store. May be called repeatedly."""
        if self._commits.closed:
            return
        await self._commits.close()
        await self._decisions.finish()
        await self._reader.close()
        await self._lists.close()
        self._lookups.close()
        self._lock.release()

    def _begin(self, watch: CallbackWatch[RunKey]) -> None:
        """Call a watch with the snapshot of its run; later commits are announced after it."""
        if watch.callback is None:
            return
        try:
            log = None if self._commits.closed else self._find(watch.key)
        except ServiceError:
            logger.exception("the snapshot of run %s cannot be read", watch.key.run_id)
            log = None
        self._runs.begin(watch, *(() if log is None else (notice_of(log),)))

    def _find(self, key: RunKey) -> LogState | None:
        self._commits.check_open()
        found = queries.find_log(self._lookups, key)
        return None if found is None else found[1]

    async def _ask(self, query: Callable[[apsw.Connection], _Answer]) -> _Answer:
        self._commits.check_open()
        return await self._reader.ask(query)
