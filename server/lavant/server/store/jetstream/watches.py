"""Who wants to hear of a run, and how they hear what other replicas have stored."""

import asyncio
import logging
import struct
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from lavant.server.errors import LavantError
from lavant.server.model import RunKey
from lavant.server.store.jetstream.connection import Connection, Unanswered
from lavant.server.store.jetstream.location import Location, RunSubjects
from lavant.server.store.jetstream.messages import Message, Messages
from lavant.server.store.jetstream.records import Record
from lavant.server.store.port import Notice, Watch
from lavant.server.store.runs import notice_of
from lavant.server.store.watchers import Watchers

POLL_INTERVAL = 2.0  # seconds
_LARGEST_BELL = 64 << 10  # bytes of a record that is sent along
_POLLED_AT_ONCE = 256  # runs; JetStream answers for 1,024 subjects at most
_SEQUENCE = struct.Struct("<Q")

logger = logging.getLogger(__name__)


class _Watched:
    """A run that somebody watches: the message up to which they have heard, and in which life of the run."""

    __slots__ = ("heard_lately", "order", "sequence", "subjects", "subscription", "watches")

    def __init__(
        self,
        subjects: RunSubjects,
        subscription: "asyncio.Task[Subscription | None]",
        sequence: int,
        order: int,
    ) -> None:
        self.subjects = subjects
        self.subscription = subscription
        self.sequence = sequence
        self.order = order
        self.watches = 0
        self.heard_lately = False


class Watches:
    """Tells watchers of a run what was stored, in the order of the log, each message at most once.

    Who has stored a message rings a bell, which carries it if it is small. Bells may get lost: a slow
    poll asks after the runs that have not been heard of since the last one.
    """

    def __init__(self, connection: Connection, messages: Messages, location: Location) -> None:
        self._connection = connection
        self._messages = messages
        self._location = location
        self._watchers: Watchers[RunKey] = Watchers()
        self._watched: dict[RunKey, _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._poller = asyncio.ensure_future(self._poll_for_ever())

    def add(self, key: RunKey, callback: Callable[[Notice], None], sequence: int, order: int) -> "RunWatch":
        """Call back after each message behind one that is known."""
        watched = self._watched.get(key)
        if watched is None:
            subjects = self._location.run(key)
            subscription = asyncio.ensure_future(self._subscribe(key, subjects))
            watched = self._watched[key] = _Watched(subjects, subscription, sequence, order)
        watched.watches += 1
        return RunWatch(self, key, self._watchers.add(key, callback))

    def remove(self, key: RunKey) -> None:
        """Somebody watches no more."""
        watched = self._watched[key]
        watched.watches -= 1
        if not watched.watches:
            del self._watched[key]
            self._keep(self._unsubscribe(watched))

    def announce(self, key: RunKey, sequence: int, order: int, notices: Sequence[Notice]) -> None:
        """Tell of a message that this replica has stored."""
        if self._advance(key, sequence, order):
            for notice in notices:
                self._watchers.announce(key, notice)
                if notice.deleted and key in self._watched:
                    self._watched[key].order = 0

    def observe(self, record: Record) -> None:
        """Tell of a message that any replica has stored."""
        if record.key in self._watched:
            try:
                self.announce(record.key, record.sequence, record.stamps.order, list(_notices(record)))
            except LavantError:
                logger.exception("a message of run %s cannot be told of", record.key.run_id)

    async def ring(self, subjects: RunSubjects, sequence: int, data: bytes) -> None:
        """Let the other replicas know of a message that is stored."""
        bell = _SEQUENCE.pack(sequence)
        await self._connection.tell(subjects.bell, bell + data if len(data) <= _LARGEST_BELL else bell)

    def poll(self) -> None:
        """Ask after all watched runs, since bells may have been lost."""
        for watched in self._watched.values():
            watched.heard_lately = False
        self._keep(self._poll())

    async def close(self) -> None:
        """Hear no more."""
        self._poller.cancel()
        subscriptions = [watched.subscription for watched in self._watched.values()]
        await asyncio.gather(self._poller, *self._tasks, *subscriptions, return_exceptions=True)

    def _advance(self, key: RunKey, sequence: int, order: int) -> bool:
        """Note that a message is heard of; tells whether anybody is to hear of it."""
        watched = self._watched.get(key)
        if watched is None or sequence <= watched.sequence:
            return False
        if watched.order not in (0, order):
            self._watchers.announce(key, Notice(0, sealed=True, producer_seen_ns=0, deleted=True))
        watched.sequence, watched.order, watched.heard_lately = sequence, order, True
        return True

    async def _subscribe(self, key: RunKey, subjects: RunSubjects) -> Subscription | None:
        async def rung(message: Msg) -> None:
            await self._rung(key, subjects, message)

        try:
            return await self._connection.listen(subjects.bell, rung)
        except Unanswered:
            return None  # the poll is left

    async def _unsubscribe(self, watched: _Watched) -> None:
        if subscription := await watched.subscription:
            await self._connection.stop_listening(subscription)

    async def _rung(self, key: RunKey, subjects: RunSubjects, bell: Msg) -> None:
        sequence = _SEQUENCE.unpack_from(bell.data)[0]
        data = bell.data[_SEQUENCE.size :]
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
        except LavantError:
            logger.exception("a message of run %s cannot be read", key.run_id)
            return
        if record.key == key:
            self.observe(record)

    async def _poll_for_ever(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                await self._poll()
            except Exception:
                logger.exception("watched runs could not be asked after")

    async def _poll(self) -> None:
        silent: dict[str, list[RunKey]] = defaultdict(list)
        for key, watched in self._watched.items():
            if not watched.heard_lately:
                silent[watched.subjects.stream].append(key)
            watched.heard_lately = False
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
    """An interest in a run, until closed."""

    __slots__ = ("_key", "_watch", "_watches")

    def __init__(self, watches: Watches, key: RunKey, watch: Watch) -> None:
        self._watches = watches
        self._key = key
        self._watch: Watch | None = watch

    def close(self) -> None:
        """Lose interest; harmless when repeated."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            self._watches.remove(self._key)


def _notices(record: Record) -> Iterator[Notice]:
    """What a message tells: a notice for each batch, the last one with how the run stands."""
    if record.deleted:
        yield Notice(0, sealed=True, producer_seen_ns=0, deleted=True)
        return
    standing = notice_of(record.log)
    chunks = [batch.chunk for batch in record.batches]
    for chunk in chunks[:-1]:
        yield Notice(chunk.last_sequence, sealed=False, producer_seen_ns=standing.producer_seen_ns, chunk=chunk)
    yield standing._replace(chunk=chunks[-1] if chunks else None)
