"""Reader of logs: from any server for delivery, from the leader for decisions."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

from lavant.server.errors import data_loss, run_not_found, unavailable
from lavant.server.model import RunKey
from lavant.server.slices import in_slices
from lavant.server.store.appending import Repeated, answer_repeated
from lavant.server.store.chunk import Chunk
from lavant.server.store.jetstream.location import Location, RunSubjects
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.jetstream.records import Record
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, EventBatch, ProducerBatch

_BATCH_BYTES = 1 << 20
_OVERHEAD = 16 << 10  # bytes of records besides their events, requested in addition
_LAG = 0.005  # seconds before the next request to a server that lags
_LAG_LIMIT = 5.0
_MARKED_RUNS = 4_096
_MARKS = 64
_FEW = 32  # messages that are decoded without a pause
_Found = TypeVar("_Found")


class _Lagging(Exception):
    """A server does not have all messages of the leader yet."""


class _Mark(NamedTuple):
    """Position of a message that was read, and the events that it holds."""

    sequence: int
    first_sequence: int
    last_sequence: int


class Reader:
    """Reader that finds events by their sequence, and batches by their producer sequences.

    Marks remember where sequential reads continue. Other messages are found by bisecting the stream: JetStream
    returns a run's first message after any sequence of the stream.
    """

    def __init__(self, messages: Messages, location: Location) -> None:
        self._messages = messages
        self._location = location
        self._marks: OrderedDict[RunKey, deque[_Mark]] = OrderedDict()

    async def last(self, key: RunKey) -> Record:
        """Read the last record of a run from the leader, or raise RUN_NOT_FOUND."""
        if (record := await self.find_last(key)) is None:
            raise run_not_found(key.run_id)
        return record

    async def find_last(self, key: RunKey) -> Record | None:
        """Read the last record of a run from the leader; None if there is no such run."""
        subjects = self._location.run(key)
        message = await self._messages.last(subjects.stream, subjects.all)
        record = None if message is None else Record(message.sequence, message.data)
        return None if record is None or record.deleted or record.key != key else record

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on."""
        after = max(after, 0)
        start = self._marked(key, after)
        chunks = [] if start is None else await self._chunks(key, start, after, max_bytes, created_ns)
        if chunks and chunks[0].first_sequence <= after + 1:
            return chunks
        return await self._patiently(partial(self._look_up, key, after, max_bytes, created_ns))

    async def find_repeated(self, key: RunKey, batch: ProducerBatch, repeated: Repeated) -> BatchReceipt:
        """Return the first receipt of a stored batch, or raise PRODUCER_CONFLICT if its content differs."""
        stored = await self._patiently(partial(self._stored_events, key, batch, repeated))
        return answer_repeated(batch, repeated, stored)

    async def _look_up(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None) -> Sequence[Chunk]:
        last = await self.last(key)
        if created_ns not in (None, last.create_ns):
            raise run_not_found(key.run_id)
        if last.last_sequence <= after:
            return []
        start = await self._start(key, after, last)
        chunks = await self._chunks(key, start, after, max_bytes, created_ns)
        if not chunks:
            raise _Lagging
        if chunks[0].first_sequence > after + 1:
            await self._check_exists(key, last)
            raise data_loss(f"events from {after + 1} on are missing")
        return chunks

    async def _stored_events(self, key: RunKey, batch: ProducerBatch, repeated: Repeated) -> dict[int, Event]:
        """Return a producer's stored events by producer sequence, including those of a batch."""
        last = await self.last(key)
        if last.log.producers.get(batch.producer_id, (-1, 0)) < (batch.producer_epoch, repeated.last_producer_sequence):
            raise run_not_found(key.run_id)  # deleted since the decision, and another run has its ID now
        wanted = (batch.producer_epoch, repeated.first_producer_sequence)

        def holds(record: Record) -> bool:
            return record.log.producers.get(batch.producer_id, (-1, 0)) >= wanted

        start = (await self._find(self._location.run(key), last, holds)).sequence
        stored: dict[int, Event] = {}
        while repeated.last_producer_sequence not in stored and start <= last.sequence:
            records = await self._records(key, start, _BATCH_BYTES)
            if not records:
                raise _Lagging
            for producer, chunk in chain.from_iterable(record.batches for record in records):
                if (producer.producer_id, producer.epoch) == (batch.producer_id, batch.producer_epoch):
                    stored.update(enumerate(EventBatch.FromString(chunk.data).events, producer.first_sequence))
            start = records[-1].sequence + 1
        if repeated.first_producer_sequence not in stored:
            await self._check_exists(key, last)
        return stored

    async def _check_exists(self, key: RunKey, last: Record) -> None:
        """Raise RUN_NOT_FOUND if a run was deleted after its last record was read: its events are purged then."""
        record = await self.find_last(key)
        if record is None or record.stamps.order != last.stamps.order:
            raise run_not_found(key.run_id)

    async def _start(self, key: RunKey, after: int, last: Record) -> int:
        """Return the stream's sequence of the message that holds the event after `after`."""
        if not after:
            return 0
        return (await self._find(self._location.run(key), last, lambda record: record.last_sequence > after)).sequence

    async def _find(self, subjects: RunSubjects, last: Record, holds: Callable[[Record], bool]) -> Record:
        """Return a run's first record for which `holds` is true; it must be true for all later ones too.

        Searches near the end first, in growing steps; then bisects.
        """
        found, low, high, step = last, 0, last.sequence, 1
        near_end = True
        while low < high:
            middle = max(low, high - step) if near_end else (low + high) // 2
            record = await self._next(subjects, middle)
            is_same = record.stamps.order == last.stamps.order
            if is_same and record.deleted:  # since `last` was read
                raise run_not_found(record.key.run_id)
            if is_same and holds(record):
                found, high = record, middle
                step *= 4
            else:
                low = record.sequence + 1
                near_end = False
        return found

    async def _next(self, subjects: RunSubjects, sequence: int) -> Record:
        """Return the first record at or after a sequence at which the leader has one."""
        message = await self._messages.next(subjects.stream, subjects.all, sequence)
        if message is None:
            raise _Lagging
        return Record(message.sequence, message.data)

    async def _chunks(self, key: RunKey, start: int, after: int, max_bytes: int, created_ns: int | None) -> list[Chunk]:
        """Read from a sequence of the stream until there are events; an empty list means that none follow yet."""
        chunks: list[Chunk] = []
        while not chunks and (records := await self._records(key, start, max_bytes + _OVERHEAD)):
            start = records[-1].sequence + 1
            taken = self._take(records, chunks, after, max_bytes, created_ns)
            await in_slices(taken) if len(records) > _FEW else deque(taken, maxlen=0)
        return chunks

    def _take(
        self, records: Sequence[Record], chunks: list[Chunk], after: int, max_bytes: int, created_ns: int | None
    ) -> Iterator[None]:
        """Add the chunks of records after a sequence, up to a size; the work may pause after each record."""
        size = 0
        for record in records:
            yield
            if record.deleted:
                chunks.clear()
                continue
            if created_ns not in (None, record.create_ns):
                raise run_not_found(record.key.run_id)
            for _, chunk in record.batches if size < max_bytes else ():
                if chunk.last_sequence <= after or size >= max_bytes:
                    continue
                if chunks and chunk.first_sequence != chunks[-1].last_sequence + 1:
                    raise data_loss(f"events from {chunks[-1].last_sequence + 1} on are missing")
                chunks.append(chunk)
                size += len(chunk.data)
            self._mark(record)

    async def _records(self, key: RunKey, start: int, max_bytes: int) -> list[Record]:
        subjects = self._location.run(key)
        found = await self._messages.following(subjects.stream, subjects.all, start, max_bytes)
        decoded = (Record(message.sequence, message.data) for message in found)
        records = await in_slices(decoded) if len(found) > _FEW else [*decoded]
        if any(record.key != key for record in records):
            raise data_loss("a stored record is not of the run that it is kept for")
        return records

    async def _patiently(self, look: Callable[[], Awaitable[_Found]]) -> _Found:
        """Repeat `look` until the servers that it reads from have what the leader has. Raises UNAVAILABLE."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _LAG_LIMIT
        while True:
            try:
                return await look()
            except _Lagging:
                if loop.time() >= give_up_at:
                    raise unavailable("the store's servers lag behind") from None
                await asyncio.sleep(_LAG)

    def _marked(self, key: RunKey, after: int) -> int | None:
        for mark in reversed(self._marks.get(key, ())):
            if mark.first_sequence - 1 <= after <= mark.last_sequence:
                return mark.sequence + (after == mark.last_sequence)
        return None

    def _mark(self, record: Record) -> None:
        marks = self._marks.get(record.key)
        if marks is None:
            marks = self._marks[record.key] = deque(maxlen=_MARKS)
            if len(self._marks) > _MARKED_RUNS:
                self._marks.popitem(last=False)
        marks.append(_Mark(record.sequence, record.first_sequence, record.last_sequence))
        self._marks.move_to_end(record.key)
