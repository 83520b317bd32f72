"""How a run's changes become a message: stored by compare-and-swap, then told to everybody."""

from contextlib import suppress
from functools import partial

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.measures import StoreMeasures
from lavant.server.store.failpoints import failpoint
from lavant.server.store.jetstream.connection import Unanswered
from lavant.server.store.jetstream.feed import Feed
from lavant.server.store.jetstream.messages import Message, Messages
from lavant.server.store.jetstream.records import Record, Stamps, encode, encode_deletion
from lavant.server.store.jetstream.runlog import Draft, RunLog
from lavant.server.store.jetstream.watches import Watches

# In seconds. A replica that was cut off for a part of that reads all lists anew. If all replicas die between putting
# a tombstone and clearing away what is before it, and none starts for as long, the run is there again.
TOMBSTONE_TTL = 24 * 3600.0


class Commits:
    """Reads how runs stand, and stores what was decided on that; nothing is told before it is stored."""

    def __init__(
        self, *, clock: Clock, messages: Messages, watches: Watches, feed: Feed, measures: StoreMeasures
    ) -> None:
        self._clock = clock
        self._messages = messages
        self._watches = watches
        self._feed = feed
        self._measures = measures

    async def load(self, log: RunLog, *, ring: bool) -> None:
        """Ask the leader how a run stands; with `ring`, the others hear of it too."""
        subjects = log.subjects
        message = await self._messages.last(subjects.stream, subjects.all)
        log.sequence, log.state, log.order = 0, None, 0
        if message is not None:
            await self._take_in(log, message, ring)
        log.known = True

    async def _take_in(self, log: RunLog, message: Message, ring: bool) -> None:
        subjects = log.subjects
        record = Record(message.sequence, message.data)
        self._watches.observe(record)
        if ring:
            await self._watches.ring(subjects, message.sequence, message.data)
            if message.subject == subjects.state:
                self._feed.stored(subjects.partition, message.sequence, log.key.tenant)
                await self._feed.ring(subjects.partition, message.sequence)
        if record.deleted:  # by a replica that may have died before it cleared away
            await self._messages.purge(subjects.stream, subjects.all, message.sequence)
        else:
            log.state, log.order = record.log, record.stamps.order
        log.sequence = message.sequence

    async def store(self, log: RunLog, draft: Draft) -> None:
        """Store a draft, if the run's last message is the one it stands on; raises Conflict if not."""
        subjects = log.subjects
        stamp = self._feed.clock.next(draft.now_ns)
        stamps = Stamps(log.order or stamp, stamp)
        failpoint("jetstream:before-publish")
        if draft.deleted:
            data = encode_deletion(log.key, stamps)
            sequence = await self._bury(log, data)
        else:
            data = encode(log.key, stamps, draft.log(), draft.batches)
            sequence = await self._publish(log, draft, data)
        failpoint("jetstream:after-publish")
        log.sequence, log.order = sequence, 0 if draft.deleted else stamps.order
        log.state = None if draft.deleted else draft.state
        log.settled_ns = self._clock.time_ns()
        self._measure(draft)
        self._watches.announce(log.key, sequence, stamps.order, draft.announcements)
        if draft.state_changed:
            self._feed.stored(subjects.partition, sequence, log.key.tenant)
        await self._watches.ring(subjects, sequence, data)
        if draft.state_changed:
            await self._feed.ring(subjects.partition, sequence)

    async def _publish(self, log: RunLog, draft: Draft, data: bytes) -> int:
        subjects = log.subjects
        subject = subjects.state if draft.state_changed else subjects.events if draft.batches else subjects.standing
        alone = subject == subjects.standing
        return await self._messages.publish(subject, data, log.sequence, among=subjects.all, alone=alone)

    async def _bury(self, log: RunLog, tombstone: bytes) -> int:
        """Put a tombstone, and clear away what is before it.

        In a full store there is no room for one until the run's events are gone: who dies in between leaves
        a run without events, to be deleted again.
        """
        subjects = log.subjects
        put = partial(
            self._messages.publish, subjects.state, tombstone, log.sequence, among=subjects.all, ttl=TOMBSTONE_TTL
        )
        try:
            sequence = await put()
        except LavantError:
            await self._messages.purge(subjects.stream, subjects.all, log.sequence)
            sequence = await put()
        with suppress(Unanswered):  # who follows the feed does it then
            await self._messages.purge(subjects.stream, subjects.all, sequence)
        return sequence

    def _measure(self, draft: Draft) -> None:
        now = self._clock.monotonic()
        self._measures.commits.observe(len(draft.announcements))
        for _, chunk in draft.batches:
            chunk.committed_at = now
            self._measures.events += len(chunk.types)
            self._measures.bytes += len(chunk.data)
