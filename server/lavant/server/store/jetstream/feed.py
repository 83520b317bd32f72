"""The changes of all runs' states, followed from the streams into the projection."""

import asyncio
import logging
import struct
from collections.abc import Callable
from functools import partial

from nats.aio.msg import Msg

from lavant.server.errors import LavantError, unavailable
from lavant.server.store.jetstream.connection import Connection, Unanswered, patiently
from lavant.server.store.jetstream.location import PARTITIONS, Location
from lavant.server.store.jetstream.messages import Message, Messages
from lavant.server.store.jetstream.projection import Projection
from lavant.server.store.jetstream.records import Record
from lavant.server.store.jetstream.runlog import StampClock
from lavant.server.store.port import Watch
from lavant.server.store.watchers import Watchers

POLL_INTERVAL = 2.0  # seconds
CUT_OFF_LIMIT = 6 * 3600.0  # seconds without the feed, after which deletions may have been missed
_READ_BYTES = 1 << 20
_LAG = 0.005  # seconds until a server that lags behind is asked again
_LAG_LIMIT = 2.0
_SEQUENCE = struct.Struct("<Q")

logger = logging.getLogger(__name__)


class _Partition:
    """How far one stream's changes are in the projection, and how far they are known to go.

    `told` holds the changes of this replica's own, of which the watchers have heard.
    """

    def __init__(self) -> None:
        self.reached = self.known = self.own = 0
        self.told: set[int] = set()
        self.news = asyncio.Event()
        self.read_at = 0.0


class Feed:
    """Keeps the projection up to date, and tells who watches a tenant's runs.

    Lists hold at least what this replica has stored itself; of others' changes they hold what has arrived, which
    takes milliseconds, or as long as a poll when a bell is lost.
    """

    def __init__(self, connection: Connection, messages: Messages, location: Location) -> None:
        self.clock = StampClock()
        self.projection = Projection()
        self._connection = connection
        self._messages = messages
        self._location = location
        self._watchers: Watchers[str] = Watchers()
        self._partitions = [_Partition() for _ in range(PARTITIONS)]
        self._progress = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Read all runs as they stand, and follow from there; takes time in proportion to their number."""
        await self._connection.listen(self._location.feed_bell("*"), self._rung)
        await asyncio.gather(*(patiently(partial(self._catch_up, partition)) for partition in range(PARTITIONS)))
        self._tasks = [asyncio.ensure_future(self._follow(partition)) for partition in range(PARTITIONS)]

    def watch(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change of a tenant's runs."""
        return self._watchers.add(tenant, callback)

    def stored(self, partition: int, sequence: int, tenant: str) -> None:
        """Take note of a change that this replica has stored, and tell of it."""
        state = self._partitions[partition]
        if sequence > state.reached:
            state.own = state.known = max(state.known, sequence)
            state.told.add(sequence)
            state.news.set()
        self._watchers.announce(tenant)

    async def ring(self, partition: int, sequence: int) -> None:
        """Let the other replicas know of a change that is stored."""
        await self._connection.tell(self._location.feed_bell(partition), _SEQUENCE.pack(sequence))

    def poll(self) -> None:
        """Look at once, since bells may have been lost."""
        for state in self._partitions:
            state.news.set()

    async def caught_up(self) -> None:
        """Wait until the projection holds what this replica has stored; raises UNAVAILABLE."""
        try:
            async with asyncio.timeout(_LAG_LIMIT), self._progress:
                await self._progress.wait_for(lambda: all(state.reached >= state.own for state in self._partitions))
        except TimeoutError:
            raise unavailable("the store's servers lag behind") from None

    async def close(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.projection.close()

    async def _rung(self, message: Msg) -> None:
        partition = int(message.subject.rpartition(".")[2])
        state = self._partitions[partition]
        state.known = max(state.known, _SEQUENCE.unpack(message.data)[0])
        state.news.set()

    async def _follow(self, partition: int) -> None:
        state = self._partitions[partition]
        while True:
            try:
                async with asyncio.timeout(POLL_INTERVAL):
                    await state.news.wait()
            except TimeoutError:
                pass
            state.news.clear()
            try:
                await self._catch_up(partition)
            except Unanswered:
                logger.debug("the feed of partition %d cannot be read", partition, exc_info=True)
            except Exception:
                logger.exception("the feed of partition %d cannot be read", partition)

    async def _catch_up(self, partition: int) -> None:
        """Read on until nothing is left, and what is known to be there was read."""
        loop = asyncio.get_running_loop()
        state = self._partitions[partition]
        if state.reached and loop.time() - state.read_at > CUT_OFF_LIMIT:
            await self.projection.forget(partition)
            state.reached = 0
        give_up_at = loop.time() + _LAG_LIMIT
        while True:
            found = await self._read(partition)
            state.read_at = loop.time()
            if found:
                await self._take_in(partition, found)
            elif state.reached >= state.known or loop.time() > give_up_at:
                return
            else:
                await asyncio.sleep(_LAG)

    async def _read(self, partition: int) -> list[Message]:
        stream, subjects = self._location.log_streams[partition], self._location.state_subjects(partition)
        return await self._messages.following(stream, subjects, self._partitions[partition].reached + 1, _READ_BYTES)

    async def _take_in(self, partition: int, found: list[Message]) -> None:
        state = self._partitions[partition]
        records = list(filter(None, map(_record, found)))
        for record in records:
            self.clock.saw(record.stamps)
            if record.deleted:  # by a replica that may have died before it cleared away
                subjects = self._location.run(record.key)
                await self._messages.purge(subjects.stream, subjects.all, record.sequence)
        await self.projection.apply(partition, records)
        async with self._progress:
            state.reached = found[-1].sequence
            self._progress.notify_all()
        for tenant in dict.fromkeys(record.key.tenant for record in records if record.sequence not in state.told):
            self._watchers.announce(tenant)
        state.told = {sequence for sequence in state.told if sequence > state.reached}


def _record(message: Message) -> Record | None:
    try:
        return Record(message.sequence, message.data)
    except LavantError:
        logger.exception("message %d of %s is left out of lists", message.sequence, message.subject)
        return None
