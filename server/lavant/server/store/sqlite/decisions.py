"""Decisions on requests that change runs, made on the event loop in the order of the calls."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

import apsw

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, run_not_found
from lavant.server.model import RunKey, is_system_run
from lavant.server.store import appending
from lavant.server.store.chunk import Chunk
from lavant.server.store.ownership import Owner
from lavant.server.store.reads import ReadThreads
from lavant.server.store.restrictions import Restriction, check_within
from lavant.server.store.runs import check_settings, is_silent, new_log, new_run, notice_of, run_not_ended
from lavant.server.store.sqlite import queries, rows
from lavant.server.store.sqlite.commits import Commits, Entry, Logs
from lavant.server.store.sqlite.schema import Meta
from lavant.server.store.stored_bytes import StoredBytes
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run

_ABANDONED_AT_ONCE = 200
_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)


class Decisions:
    """Decisions based on `Logs`, which are ahead of the file; changes are submitted to `Commits`."""

    def __init__(
        self,
        *,
        clock: Clock,
        meta: Meta,
        logs: Logs,
        commits: Commits,
        reader: ReadThreads,
        lookups: apsw.Connection,
        stored_bytes: StoredBytes,
    ) -> None:
        self._clock = clock
        self._rows = count(meta.next_run)
        self._next_change = meta.next_change
        self._last_created = meta.last_created
        self._logs = logs
        self._commits = commits
        self._reader = reader
        self._lookups = lookups
        self._stored_bytes = stored_bytes
        self._tasks: set[asyncio.Task[Any]] = set()
        self._purging = False

    async def create(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings. Returns the stored run if its settings are equal; else raises RUN_EXISTS."""
        self._commits.check_open()
        wanted = new_run(run)
        found = self._logs.find(key)
        if found is None:
            log = new_log(key, wanted, self._clock.time_ns())
            created = Run()
            created.CopyFrom(log.run)
            await self._store(Entry(next(self._rows), key, log), log, is_new=True)
            return created
        await self._commits.settled(key)
        check_settings(key, found[1].run, wanted)
        return self._stored(key)

    def append(
        self, key: RunKey, batch: ProducerBatch, owner: Owner, within: Restriction | None
    ) -> "asyncio.Future[BatchReceipt]":
        """Append a batch by the rules of `appending`; the future returns the receipt once the batch is durable."""
        try:
            return self._append(key, batch, owner, within)
        except ServiceError as error:
            return self._keep(self._refuse(self._commits.settled(key), error))

    async def cancel(self, key: RunKey, reason: str, within: Restriction | None) -> Run:
        """Record a request to cancel a run, and notify its watchers; the first reason stays."""
        self._commits.check_open()
        entry, log = self._logs.get(key)
        check_within(within, log.run)
        if log.sealed or log.cancel_reason is not None:
            await self._commits.settled(key)
            return self._stored(key)
        log.cancel_reason = reason
        run = Run()
        run.CopyFrom(log.run)
        await self._store(entry, log)
        return run

    async def delete(self, key: RunKey, within: Restriction | None) -> None:
        """Delete an ended run, or raise RUN_NOT_ENDED; its log is deleted soon after, in small parts."""
        self._commits.check_open()
        entry, log = self._logs.get(key)
        check_within(within, log.run)
        if not log.sealed:
            raise run_not_ended(key)
        statements = rows.delete_run(entry.row, key, log.run, self._take_change(), self._clock.time_ns())
        entry.log = None
        deleted = self._commits.submit(statements, entry=entry, notice=notice_of(log, deleted=True), news=True)
        deleted.add_done_callback(lambda done: self._deleted(key.tenant, log.stored_bytes, done))
        await asyncio.shield(deleted)

    def _deleted(self, tenant: str, size: int, done: "asyncio.Future[None]") -> None:
        if not done.cancelled() and done.exception() is None:
            self._stored_bytes.add(tenant, -size)
        self.purge()

    async def abandon(self, silent: Sequence[RunKey], silent_since_ns: int, now_ns: int) -> list[RunKey]:
        """End the runs of `silent` whose producers are still silent; a few at a time, so as not to delay others."""
        ended: list[RunKey] = []
        for start in range(0, len(silent), _ABANDONED_AT_ONCE):
            some = silent[start : start + _ABANDONED_AT_ONCE]
            commits = [(key, commit) for key in some if (commit := self._abandon(key, silent_since_ns, now_ns))]
            await asyncio.gather(*(commit for _, commit in commits))
            ended += [key for key, _ in commits]
        return ended

    def purge(self) -> None:
        """Delete the batches of deleted runs in the background."""
        if not self._purging and not self._commits.closed:
            self._purging = True
            self._keep(self._purge_all())

    async def finish(self) -> None:
        """Wait for tasks in the background."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _refuse(self, settled: "asyncio.Future[None]", error: ServiceError) -> BatchReceipt:
        """Raise a refusal once the changes that it depends on are durable; if they fail, raise their error."""
        await settled
        raise error

    def _append(
        self, key: RunKey, batch: ProducerBatch, owner: Owner, within: Restriction | None
    ) -> "asyncio.Future[BatchReceipt]":
        self._commits.check_room(key.tenant)
        now_ns = self._clock.time_ns()
        found = self._logs.find(key)
        is_new = found is None
        if found is not None:
            entry, log = found
            if batch.HasField("create"):
                check_settings(key, log.run, new_run(batch.create))
            check_within(within, log.run)
        elif batch.HasField("create"):
            log = new_log(key, new_run(batch.create), now_ns)
            entry = Entry(next(self._rows), key, log)
        else:
            raise run_not_found(key.run_id)
        outcome = appending.plan(log, batch, now_ns, owner, by_server=is_system_run(key))
        if isinstance(outcome, appending.Appended):
            producer = appending.Producer(batch.producer_id, batch.producer_epoch, batch.first_producer_sequence)
            return self._store(
                entry,
                log,
                is_new=is_new,
                batch=(producer, outcome.chunk),
                state_changed=outcome.state_changed,
                result=outcome.receipt,
            )
        if isinstance(outcome, appending.Repeated):
            query = partial(queries.find_repeated, key=key, row=entry.row, batch=batch, repeated=outcome)
            return self._keep(self._answer_again(self._commits.settled(key), query))
        if outcome.run_changed:
            return self._store(entry, log, is_new=is_new, result=outcome.receipt)
        return self._keep(self._answer(self._commits.settled(key), outcome.receipt))

    def _store(
        self,
        entry: Entry,
        log: appending.LogState,
        *,
        is_new: bool = False,
        batch: tuple[appending.Producer, Chunk] | None = None,
        state_changed: bool = False,
        result: object = None,
    ) -> "asyncio.Future[Any]":
        """Store the current state of a run, with the batch that led to it; the future returns `result`."""
        change = self._take_change() if is_new or state_changed else None
        if is_new and change is not None:
            self._logs.add(entry)
            self._last_created = max(log.run.create_time.ToNanoseconds(), self._last_created + 1)
            writes = rows.insert_run(entry.row, entry.key, log, change, self._last_created)
        else:
            writes = rows.update_run(entry.row, entry.key, log, change)
        if batch is not None:
            writes.append(rows.insert_batch(entry.row, entry.key, *batch))
        chunk = None if batch is None else batch[1]
        notice = notice_of(log, chunk=chunk)
        return self._commits.submit(writes, entry=entry, result=result, notice=notice, news=change is not None)

    async def _answer_again(
        self, settled: "asyncio.Future[None]", query: Callable[[apsw.Connection], BatchReceipt]
    ) -> BatchReceipt:
        await settled
        return await self._reader.ask(query)

    async def _answer(self, settled: "asyncio.Future[None]", receipt: BatchReceipt) -> BatchReceipt:
        await settled
        return receipt

    def _abandon(self, key: RunKey, silent_since_ns: int, now_ns: int) -> "asyncio.Future[BatchReceipt] | None":
        try:
            found = self._logs.find(key)
        except ServiceError:
            logger.exception("run %s of tenant %s is silent but cannot be ended", key.run_id, key.tenant)
            return None
        if found is None:
            return None
        entry, log = found
        waits_for_disk = entry.pending > 0  # slow commits do not count as silence of the producer
        if waits_for_disk or not is_silent(log, max(silent_since_ns, entry.settled_ns), now_ns):
            return None
        chunk = appending.plan_abandonment(log, now_ns)
        return self._store(entry, log, batch=(appending.SERVER, chunk), state_changed=True)

    def _stored(self, key: RunKey) -> Run:
        if (found := queries.find_log(self._lookups, key)) is None:
            raise run_not_found(key.run_id)
        return found[1].run

    def _take_change(self) -> int:
        self._next_change += 1
        return self._next_change - 1

    def _keep(self, work: Coroutine[Any, Any, _Answer]) -> "asyncio.Task[_Answer]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _purge_all(self) -> None:
        try:
            while not self._commits.closed and (row := queries.next_unpurged(self._lookups)) is not None:
                await self._commits.submit(rows.purge(row))
        except (ServiceError, apsw.Error):
            logger.warning("the logs of deleted runs are left for the next deletion", exc_info=True)
        finally:
            self._purging = False
