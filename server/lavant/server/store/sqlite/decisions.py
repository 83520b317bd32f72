"""What becomes of each request to change a run: decided on the event loop, in the order of the calls."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

import apsw

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.model import RunKey
from lavant.server.store import appending
from lavant.server.store.chunk import Chunk
from lavant.server.store.runs import is_silent, new_log, notice_of, run_exists, run_not_ended, settings_of
from lavant.server.store.sqlite import queries, rows
from lavant.server.store.sqlite.commits import Commits
from lavant.server.store.sqlite.logs import Entry, Logs
from lavant.server.store.sqlite.reader import Reader
from lavant.server.store.sqlite.schema import Meta
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run

_ABANDONED_AT_ONCE = 200
_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)


class Decisions:
    """Decides from `Logs`, which run ahead of what is durable, and hands the changes to `Commits`."""

    def __init__(
        self, *, clock: Clock, meta: Meta, logs: Logs, commits: Commits, reader: Reader, lookups: apsw.Connection
    ) -> None:
        self._clock = clock
        self._rows = count(meta.next_run)
        self._next_change = meta.next_change
        self._logs = logs
        self._commits = commits
        self._reader = reader
        self._lookups = lookups
        self._tasks: set[asyncio.Task[Any]] = set()
        self._purging = False

    async def create(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings, or answer with the stored one if they are equal; else RUN_EXISTS."""
        self._commits.check_open()
        settings = settings_of(run)
        found = self._logs.find(key)
        if found is None:
            return await self._create(key, settings)
        _, log = found
        if settings_of(log.run) != settings:
            await self._commits.settled(key)
            raise run_exists(key)
        await self._commits.settled(key)
        return self._stored(key)

    def append(self, key: RunKey, batch: ProducerBatch) -> "asyncio.Future[BatchReceipt]":
        """Append a batch by the rules of `appending`; the receipt comes once it is durable."""
        try:
            return self._append(key, batch)
        except LavantError as error:
            return self._keep(self._refuse(self._commits.settled(key), error))

    async def cancel(self, key: RunKey, reason: str) -> Run:
        """Remember that somebody wants the run to stop, and tell its watchers; the first reason stays."""
        self._commits.check_open()
        entry, log = self._logs.get(key)
        if log.sealed or log.cancel_reason is not None:
            await self._commits.settled(key)
            return self._stored(key)
        log.cancel_reason = reason
        run = Run()
        run.CopyFrom(log.run)
        await self._save(entry, log, result=run)
        return run

    async def delete(self, key: RunKey) -> None:
        """Delete an ended run, or raise RUN_NOT_ENDED; its log goes soon after, piece by piece."""
        self._commits.check_open()
        entry, log = self._logs.get(key)
        if not log.sealed:
            raise run_not_ended(key)
        statements = rows.delete_run(entry.row, key, dict(log.run.labels), self._next_change - 1)
        entry.log = None
        deleted = self._commits.submit(statements, entry=entry, notice=notice_of(log, deleted=True))
        deleted.add_done_callback(lambda _: self.purge())
        await asyncio.shield(deleted)

    async def abandon(self, silent: Sequence[RunKey], silent_since_ns: int, now_ns: int) -> list[RunKey]:
        """End those of some runs whose producers are still silent; some at a time, to let others go on."""
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
            self._keep(self._purge_doomed())

    async def finish(self) -> None:
        """Wait for what goes on in the background."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _create(self, key: RunKey, settings: Run) -> Run:
        log = new_log(key, settings, self._clock.time_ns())
        entry = Entry(next(self._rows), key, log)
        created = Run()
        created.CopyFrom(settings)
        statements = rows.insert_run(entry.row, key, log, self._take_change())
        self._logs.add(entry)
        await self._commits.submit(statements, entry=entry, notice=notice_of(log), news=True)
        return created

    async def _refuse(self, settled: "asyncio.Future[None]", error: LavantError) -> BatchReceipt:
        """Refuse once what the refusal stands on is durable; if that fails, its error is the answer."""
        await settled
        raise error

    def _append(self, key: RunKey, batch: ProducerBatch) -> "asyncio.Future[BatchReceipt]":
        self._commits.check_room()
        entry, log = self._logs.get(key)
        outcome = appending.plan(log, batch, self._clock.time_ns())
        if isinstance(outcome, appending.Appended):
            producer = appending.Producer(batch.producer_id, batch.producer_epoch, batch.first_producer_sequence)
            return self._store(entry, log, producer, outcome.chunk, outcome.receipt, outcome.state_changed)
        if isinstance(outcome, appending.Repeated):
            query = partial(queries.find_repeated, key=key, row=entry.row, batch=batch, repeated=outcome)
            return self._keep(self._answer_again(self._commits.settled(key), query))
        if outcome.run_changed:
            return self._save(entry, log, result=outcome.receipt)
        return self._keep(self._answer(self._commits.settled(key), outcome.receipt))

    def _store(
        self,
        entry: Entry,
        log: appending.LogState,
        producer: appending.Producer,
        chunk: Chunk,
        receipt: BatchReceipt | None,
        state_changed: bool,
    ) -> "asyncio.Future[BatchReceipt]":
        statements = rows.update_run(entry.row, entry.key, log, self._take_change() if state_changed else None)
        statements.append(rows.insert_batch(entry.row, entry.key, producer, chunk))
        return self._commits.submit(
            statements,
            entry=entry,
            result=receipt,
            notice=notice_of(log, chunk=chunk),
            news=state_changed,
        )

    def _save(self, entry: Entry, log: appending.LogState, *, result: object) -> "asyncio.Future[BatchReceipt]":
        statements = rows.update_run(entry.row, entry.key, log, None)
        return self._commits.submit(statements, entry=entry, result=result, notice=notice_of(log))

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
        except LavantError:
            logger.exception("run %s of tenant %s is silent but cannot be ended", key.run_id, key.tenant)
            return None
        if found is None:
            return None
        entry, log = found
        waits_for_disk = entry.pending > 0  # which is not the producer's silence
        if waits_for_disk or not is_silent(log, max(silent_since_ns, entry.settled_ns), now_ns):
            return None
        chunk = appending.plan_abandonment(log, now_ns)
        return self._store(entry, log, appending.SERVER, chunk, None, state_changed=True)

    def _stored(self, key: RunKey) -> Run:
        return queries.find_log(self._lookups, key).run

    def _take_change(self) -> int:
        self._next_change += 1
        return self._next_change - 1

    def _keep(self, work: Coroutine[Any, Any, _Answer]) -> "asyncio.Task[_Answer]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _purge_doomed(self) -> None:
        try:
            while not self._commits.closed and (row := queries.next_doomed(self._lookups)) is not None:
                await self._commits.submit(rows.purge(row))
        except (LavantError, apsw.Error):
            logger.warning("the logs of deleted runs are left for the next deletion", exc_info=True)
        finally:
            self._purging = False
