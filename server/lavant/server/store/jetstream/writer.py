"""Writer of runs: changes are queued, decided on the run's last message, stored by compare-and-swap, and announced."""

import asyncio
import logging
from collections.abc import Container, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, unavailable
from lavant.server.metrics import StoreMetrics
from lavant.server.model import RunKey
from lavant.server.store.appending import Repeated
from lavant.server.store.backlog import Backlog
from lavant.server.store.failpoints import failpoint
from lavant.server.store.jetstream.changes import Append, Change, Draft, RunLog, failed, take_group
from lavant.server.store.jetstream.connection import Unanswered
from lavant.server.store.jetstream.feed import Feed
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.messages import Conflict, Message, Messages
from lavant.server.store.jetstream.reader import Reader
from lavant.server.store.jetstream.records import Record, Stamps, encode, encode_deletion
from lavant.server.store.jetstream.watches import Watches
from lavant.server.store.log_cache import LogCache
from lavant.server.store.port import DELETIONS_KEPT
from lavant.server.turns import Origin, Turns

# A replica that was cut off for a part of this time reads all lists again. If all replicas die after a tombstone is
# stored and before the messages before it are purged, and none starts within this time, the run exists again.
TOMBSTONE_TTL = DELETIONS_KEPT

_LIST_AGAIN = 4 << 20  # bytes by which a run grows until it is listed again though its state is the same


class Commits:
    """Loader of runs' states, which stores decided drafts and announces them after they are stored."""

    def __init__(
        self, *, clock: Clock, messages: Messages, watches: Watches, feed: Feed, metrics: StoreMetrics
    ) -> None:
        self._clock = clock
        self._messages = messages
        self._watches = watches
        self._feed = feed
        self._metrics = metrics

    async def load(self, log: RunLog, *, ring: bool) -> None:
        """Read the state of a run from the leader; with `ring`, notify the other replicas of it."""
        subjects = log.subjects
        message = await self._messages.last(subjects.stream, subjects.all)
        log.sequence, log.state, log.order, log.listed_bytes = 0, None, 0, 0
        if message is not None:
            await self._take_in(log, message, ring)
        log.known = True

    async def _take_in(self, log: RunLog, message: Message, ring: bool) -> None:
        subjects = log.subjects
        record = Record(message.sequence, message.data)
        self._watches.observe(record)
        if ring:
            await self._watches.notify(subjects, message.sequence, message.data)
            if message.subject == subjects.state:
                self._feed.stored(subjects.partition, message.sequence, log.key.tenant)
                await self._feed.notify(subjects.partition, message.sequence)
        if record.deleted:  # by a replica that may have died before it purged the run's messages
            await self._messages.purge(subjects.stream, subjects.all, message.sequence)
        else:
            log.state, log.order = record.log, record.stamps.order
            log.listed_bytes = log.state.stored_bytes
        log.sequence = message.sequence

    async def store(self, log: RunLog, draft: Draft) -> None:
        """Store a draft if the run's last message is the one it was decided on. Raises Conflict if not."""
        subjects = log.subjects
        stored_bytes = draft.log().stored_bytes
        if stored_bytes - log.listed_bytes >= _LIST_AGAIN:  # so that the other replicas count them
            draft.state_changed = True
        stamp = self._feed.clock.next(draft.now_ns)
        stamps = Stamps(log.order or stamp, stamp)
        failpoint("jetstream:before-publish")
        if draft.deleted:
            data = encode_deletion(log.key, stamps, draft.log().run)
            sequence = await self._bury(log, data)
        else:
            data = encode(log.key, stamps, draft.log(), draft.batches)
            sequence = await self._publish(log, draft, data)
        failpoint("jetstream:after-publish")
        log.sequence, log.order = sequence, 0 if draft.deleted else stamps.order
        log.state = None if draft.deleted else draft.state
        log.settled_ns = self._clock.time_ns()
        self._count(draft)
        # The feed may have read a change before its writer heard that it is stored, and has counted it then.
        is_counted = draft.state_changed and self._feed.has_listed(subjects.partition, sequence)
        if not draft.deleted and not is_counted:
            self._feed.stored_bytes.grew(log.key, log.listed_bytes, stored_bytes)
        if draft.state_changed:
            log.listed_bytes = 0 if draft.deleted else stored_bytes
        self._watches.announce(log.key, sequence, stamps.order, draft.announcements)
        if draft.state_changed:
            self._feed.stored(subjects.partition, sequence, log.key.tenant)
        await self._watches.notify(subjects, sequence, data)
        if draft.state_changed:
            await self._feed.notify(subjects.partition, sequence)

    async def _publish(self, log: RunLog, draft: Draft, data: bytes) -> int:
        subjects = log.subjects
        subject = subjects.state if draft.state_changed else subjects.events if draft.batches else subjects.standing
        alone = subject == subjects.standing
        return await self._messages.publish(subject, data, log.sequence, among=subjects.all, alone=alone)

    async def _bury(self, log: RunLog, tombstone: bytes) -> int:
        """Store a tombstone, and purge the messages before it.

        A full store accepts a tombstone only after the run's events are purged: a replica that dies in between
        leaves a run without events, to be deleted again.
        """
        subjects = log.subjects
        put = partial(
            self._messages.publish, subjects.state, tombstone, log.sequence, among=subjects.all, ttl=TOMBSTONE_TTL
        )
        try:
            sequence = await put()
        except ServiceError:
            await self._messages.purge(subjects.stream, subjects.all, log.sequence)
            sequence = await put()
        with suppress(Unanswered):  # then a replica that follows the feed purges them
            await self._messages.purge(subjects.stream, subjects.all, sequence)
        return sequence

    def _count(self, draft: Draft) -> None:
        now = self._clock.monotonic()
        self._metrics.commits.observe(len(draft.announcements))
        for _, chunk in draft.batches:
            chunk.committed_at = now
            self._metrics.stored(draft.key.tenant, len(chunk.types), len(chunk.data))


TRY_LIMIT = 10.0  # seconds: a cluster elects a leader in less
_MAX_GROUP_BYTES = 512 << 10
_AT_ONCE = 256  # runs whose changes are under way to NATS
_PAUSE = 0.05  # seconds before a try after an unknown outcome

logger = logging.getLogger(__name__)


class Writer:
    """Writer of changes: those of one run in the order of the calls, many runs at once, those of tenants in turn.

    All changes that are queued for a run become one message. It is stored only if the run's last message is still
    the one that they were decided on; if not, they are decided again. A decision with nothing to store is checked
    with the leader first. An unknown outcome is resolved by reading the run from the leader.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        location: Location,
        commits: Commits,
        reader: Reader,
    ) -> None:
        self._clock = clock
        self._location = location
        self._commits = commits
        self._reader = reader
        self._logs: LogCache[RunLog] = LogCache(lambda log: log.worker is None)
        self._backlog = Backlog()
        self._turns = Turns(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def submit(self, key: RunKey, change: Change) -> "asyncio.Future[Any]":
        """Queue a change; the future returns its result once all that it depends on is stored and announced."""
        if refusal := self._refusal(key.tenant):
            change.future.set_exception(refusal)
            return change.future
        log = self._log(key)
        log.queue.append(change)
        self._backlog.add(key.tenant, change.size)
        if log.worker is None:
            log.worker = self._keep(self._work(log))
        return change.future

    def check_open(self) -> None:
        """Raise UNAVAILABLE once the store is closing."""
        if self._closed:
            raise unavailable("the store is closed")

    @property
    def closed(self) -> bool:
        """Whether changes are refused because the store is closing."""
        return self._closed

    async def close(self) -> None:
        """Store queued changes, and refuse later ones."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _refusal(self, tenant: str) -> ServiceError | None:
        if self._closed:
            return unavailable("the store is closed")
        if self._backlog.is_full(tenant):
            return unavailable("the store is behind with its writing; send it again")
        return None

    def _log(self, key: RunKey) -> RunLog:
        log = self._logs.get(key)
        if log is None:
            log = RunLog(key, self._location.run(key))
            self._logs.add(key, log, 0)
        return log

    async def _work(self, log: RunLog) -> None:
        while log.queue:
            give_up_at = asyncio.get_running_loop().time() + TRY_LIMIT
            await self._turns.acquire(Origin(log.key.tenant, log.key.run_id))
            group = take_group(log.queue, _MAX_GROUP_BYTES)
            try:
                await self._commit(log, group, give_up_at)
            except Exception as error:
                log.forget()
                for change in group:
                    failed(change, _reported(error, log.key))
            finally:
                self._turns.release()
                self._backlog.remove(log.key.tenant, sum(change.size for change in group))
        log.worker = None
        if log.state is None or log.state.sealed:
            self._logs.remove(log.key, log)
        else:
            self._logs.weigh(log.key, log, log.state.weight)

    async def _commit(self, log: RunLog, group: Sequence[Change], give_up_at: float) -> None:
        """Decide and store a group, again after each conflict. Raises UNAVAILABLE if that takes too long."""
        loop = asyncio.get_running_loop()
        certain = False
        tried: set[Change] = set()  # may be stored, though NATS did not confirm it
        while True:
            answers: list[Any] = []
            try:
                if not log.known:
                    await self._commits.load(log, ring=bool(tried))
                    certain = True
                draft = Draft(log, self._clock.time_ns(), tried)
                answers = [_decided(change, draft) for change in group]
                if draft.changed:
                    await self._commits.store(log, draft)
                    certain = True
            except Conflict:
                log.forget()
            except Unanswered as error:
                log.forget()
                tried.update(change for change, answer in zip(group, answers, strict=False) if not _refused(answer))
                if loop.time() >= give_up_at:
                    raise unavailable("the store is out of reach") from error
                await asyncio.sleep(_PAUSE)
            else:
                if certain:
                    self._answer(log, group, answers, tried)
                    return
                log.forget()

    def _answer(self, log: RunLog, group: Sequence[Change], answers: Sequence[Any], tried: Container[Change]) -> None:
        for change, answer in zip(group, answers, strict=True):
            if isinstance(answer, ServiceError):
                failed(change, answer)
            elif isinstance(answer, Repeated) and isinstance(change, Append):
                self._keep(self._answer_again(log, change, answer, duplicate=change not in tried))
            elif not change.future.done():
                change.future.set_result(answer)

    async def _answer_again(self, log: RunLog, change: Append, repeated: Repeated, *, duplicate: bool) -> None:
        """Answer with a stored batch's first receipt; no duplicate if an earlier try of the same call stored it."""
        try:
            receipt = await self._reader.find_repeated(log.key, change.batch, repeated)
        except Exception as error:
            failed(change, _reported(error, log.key))
        else:
            receipt.duplicate = duplicate
            if not change.future.done():
                change.future.set_result(receipt)

    def _keep(self, work: Any) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _decided(change: Change, draft: Draft) -> Any:
    """Return the result of a change, which may be a refusal."""
    try:
        return change.decide(draft)
    except ServiceError as error:
        return error


def _refused(answer: Any) -> bool:
    """Return whether a change left nothing to store: it was refused, or is already stored."""
    return isinstance(answer, ServiceError | Repeated)


def _reported(error: Exception, key: RunKey) -> ServiceError:
    """Return the error that callers receive for a failure."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, Unanswered):
        return unavailable("the store is out of reach")
    logger.error("a change of run %s could not be stored", key.run_id, exc_info=error)
    return unavailable("the store could not write")
