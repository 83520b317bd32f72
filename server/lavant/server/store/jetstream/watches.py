"""Watches of runs, including the changes that other replicas store."""

import asyncio
import logging
import struct
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from lavant.server.errors import ServiceError
from lavant.server.model import RunKey
from lavant.server.store.jetstream.connection import Connection, Unanswered
from lavant.server.store.jetstream.location import Location, RunSubjects
from lavant.server.store.jetstream.messages import Message, Messages
from lavant.server.store.jetstream.records import Record
from lavant.server.store.port import Notice, Watch
from lavant.server.store.runs import notice_of
from lavant.server.store.watchers import CallbackWatch, Watchers

POLL_INTERVAL = 2.0  # seconds
_LARGEST_NOTIFICATION = 64 << 10  # bytes of the largest record that a notification carries
_POLLED_AT_ONCE = 256  # runs; JetStream accepts 1,024 subjects per request
_SEQUENCE = struct.Struct("<Q")

logger = logging.getLogger(__name__)


class _Watched:
    """Watched run: the sequence of its last announced message, 0 if none, and the state of the run after that.

    `order` distinguishes successive runs with the same ID; 0: there is no run. `notified`: whether a message was
    announced since the last poll.
    """

    __slots__ = ("notified", "order", "sequence", "snapshot", "subjects", "subscription", "watches")

    def __init__(self, subjects: RunSubjects, subscription: "asyncio.Task[Subscription | None]") -> None:
        self.subjects = subjects
        self.subscription = subscription
        self.sequence = self.order = self.watches = 0
        self.snapshot: Notice | None = None
        self.notified = False


class Watches:
    """Watches of runs, notified of each stored message at most once, in the order of the log.

    The replica that stores a message sends a notification, which carries the message if it is small. Notifications may
    be lost: a slow poll reads the runs for which none arrived since the last poll.
    """

    def __init__(self, connection: Connection, messages: Messages, location: Location) -> None:
        self._connection = connection
        self._messages = messages
        self._location = location
        self._watchers: Watchers[RunKey] = Watchers()
        self._watched: dict[RunKey, _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._poller = asyncio.ensure_future(self._poll_forever())

    def add(self, key: RunKey, callback: Callable[[Notice], None]) -> "RunWatch":
        """Call back with the snapshot of a run, then after each message."""
        watched = self._watched.get(key)
        if watched is None:
            subjects = self._location.run(key)
            subscription = asyncio.ensure_future(self._subscribe(key, subjects))
            watched = self._watched[key] = _Watched(subjects, subscription)
            self._keep(self._read_snapshot(key, watched))
        watched.watches += 1
        known = watched.sequence > 0  # else the snapshot is still being read
        watch = self._watchers.add(key, callback, begun=not known)
        if known:
            asyncio.get_running_loop().call_soon(self._begin, watch, watched)
        return RunWatch(self, key, watch)

    def remove(self, key: RunKey) -> None:
        """Remove a watch of a run."""
        watched = self._watched[key]
        watched.watches -= 1
        if not watched.watches:
            del self._watched[key]
            self._keep(self._unsubscribe(watched))

    def announce(self, key: RunKey, sequence: int, order: int, notices: Sequence[Notice]) -> None:
        """Notify watchers of a message that this replica has stored."""
        if (watched := self._advance(key, sequence, order)) is not None:
            for notice in notices:
                watched.snapshot = None if notice.deleted else notice._replace(chunk=None)
                self._watchers.announce(key, notice)
                if notice.deleted:
                    watched.order = 0

    def observe(self, record: Record) -> None:
        """Notify watchers of a message that any replica has stored."""
        if record.key in self._watched:
            try:
                self.announce(record.key, record.sequence, record.stamps.order, list(_notices(record)))
            except ServiceError:
                logger.exception("a message of run %s cannot be announced", record.key.run_id)

    async def notify(self, subjects: RunSubjects, sequence: int, data: bytes) -> None:
        """Notify the other replicas of a stored message."""
        carried = data if len(data) <= _LARGEST_NOTIFICATION else b""
        await self._connection.notify(subjects.notification, _SEQUENCE.pack(sequence) + carried)

    def poll(self) -> None:
        """Read all watched runs now, since notifications may have been lost."""
        for watched in self._watched.values():
            watched.notified = False
        self._keep(self._poll())

    async def close(self) -> None:
        """Stop receiving messages."""
        self._poller.cancel()
        subscriptions = [watched.subscription for watched in self._watched.values()]
        await asyncio.gather(self._poller, *self._tasks, *subscriptions, return_exceptions=True)

    def _begin(self, watch: CallbackWatch[RunKey], watched: _Watched) -> None:
        self._watchers.begin(watch, *(() if watched.snapshot is None else (watched.snapshot,)))

    async def _read_snapshot(self, key: RunKey, watched: _Watched) -> None:
        """Announce the snapshot of a run, unless a message of it was announced first; if that fails, the poll does.

        It is read after the subscription to notifications, so that no message is missed in between.
        """
        await watched.subscription
        try:
            found = await self._messages.last(watched.subjects.stream, watched.subjects.all)
            record = None if found is None else Record(found.sequence, found.data)
            if record is not None and not record.deleted and self._watched.get(key) is watched and record.key == key:
                self.announce(key, record.sequence, record.stamps.order, [notice_of(record.log)])
        except Unanswered:
            pass
        except ServiceError:
            logger.exception("the snapshot of run %s cannot be read", key.run_id)

    def _advance(self, key: RunKey, sequence: int, order: int) -> _Watched | None:
        """Record a message of a run; return the watched run if the message must be announced."""
        watched = self._watched.get(key)
        if watched is None or sequence <= watched.sequence:
            return None
        if watched.order not in (0, order):
            self._watchers.announce(key, Notice(0, sealed=True, producer_seen_ns=0, deleted=True))
        watched.sequence, watched.order, watched.notified = sequence, order, True
        return watched

    async def _subscribe(self, key: RunKey, subjects: RunSubjects) -> Subscription | None:
        async def on_notification(message: Msg) -> None:
            await self._on_notification(key, subjects, message)

        try:
            return await self._connection.listen(subjects.notification, on_notification)
        except Unanswered:
            return None  # the poll reads the run later

    async def _unsubscribe(self, watched: _Watched) -> None:
        if subscription := await watched.subscription:
            await self._connection.stop_listening(subscription)

    async def _on_notification(self, key: RunKey, subjects: RunSubjects, notification: Msg) -> None:
        sequence = _SEQUENCE.unpack_from(notification.data)[0]
        data = notification.data[_SEQUENCE.size :]
        watched = self._watched.get(key)
        if watched is None or sequence <= watched.sequence:
            return
        if data:
            self._observe(key, Message(sequence, "", data, 0))
            return
        with suppress(Unanswered):
            if found := await self._messages.last(subjects.stream, subjects.all):
                self._observe(key, found)

    def _observe(self, key: RunKey, message: Message) -> None:
        try:
            record = Record(message.sequence, message.data)
        except ServiceError:
            logger.exception("a message of run %s cannot be read", key.run_id)
            return
        if record.key == key:
            self.observe(record)

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                await self._poll()
            except Exception:
                logger.exception("watched runs could not be polled")

    async def _poll(self) -> None:
        silent: dict[str, list[RunKey]] = defaultdict(list)
        for key, watched in self._watched.items():
            if not watched.notified:
                silent[watched.subjects.stream].append(key)
            watched.notified = False
        for stream, keys in silent.items():
            for start in range(0, len(keys), _POLLED_AT_ONCE):
                await self._ask_after(stream, keys[start : start + _POLLED_AT_ONCE])

    async def _ask_after(self, stream: str, keys: Sequence[RunKey]) -> None:
        by_subject = {}
        for key in keys:
            subjects = self._location.run(key)
            by_subject.update(dict.fromkeys((subjects.state, subjects.events, subjects.standing), key))
        try:
            found = await self._messages.latest(stream, list(by_subject))
        except Unanswered:
            return
        for message in found:
            watched = self._watched.get(key := by_subject[message.subject])
            if watched is not None and message.sequence > watched.sequence:
                self._observe(key, message)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class RunWatch:
    """Watch of a run, until closed."""

    __slots__ = ("_key", "_watch", "_watches")

    def __init__(self, watches: Watches, key: RunKey, watch: Watch) -> None:
        self._watches = watches
        self._key = key
        self._watch: Watch | None = watch

    def close(self) -> None:
        """Stop calling back. May be called repeatedly."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            self._watches.remove(self._key)


def _notices(record: Record) -> Iterator[Notice]:
    """Yield the notices of a message: one per batch, the last one with the snapshot of the run."""
    if record.deleted:
        yield Notice(0, sealed=True, producer_seen_ns=0, deleted=True)
        return
    standing = notice_of(record.log)
    chunks = [batch.chunk for batch in record.batches]
    for chunk in chunks[:-1]:
        yield standing._replace(last_sequence=chunk.last_sequence, sealed=False, chunk=chunk, cancel_reason=None)
    yield standing._replace(chunk=chunks[-1] if chunks else None)
