"""Reading logs back: from any server what is delivered, from the leader what is decided."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

from lavant.server.errors import data_loss, run_not_found, unavailable
from lavant.server.model import RunKey
from lavant.server.store.appending import Repeated, answer_repeated
from lavant.server.store.chunk import Chunk
from lavant.server.store.jetstream.location import Location, RunSubjects
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.jetstream.records import Record
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, EventBatch, ProducerBatch

_BATCH_BYTES = 1 << 20
_OVERHEAD = 16 << 10  # bytes of records beside their events, asked for in addition
_LAG = 0.005  # seconds until a server that lags behind is asked again
_LAG_LIMIT = 5.0
_MARKED_RUNS = 4_096
_MARKS = 64
_Found = TypeVar("_Found")


class _Lagging(Exception):
    """A server does not have yet what the leader has."""


class _Mark(NamedTuple):
    """A message that was read, by the events that it holds."""

    sequence: int
    first_sequence: int
    last_sequence: int


class Reader:
    """Finds events by their sequence, and batches by their producers' numbers.

    Who reads on is remembered by marks. Elsewhere a message is found by halving the stream between two of its
    sequences: JetStream gives the first message of a run behind any place of the stream.
    """

    def __init__(self, messages: Messages, location: Location) -> None:
        self._messages = messages
        self._location = location
        self._marks: OrderedDict[RunKey, deque[_Mark]] = OrderedDict()

    async def last(self, key: RunKey) -> Record:
        """The last record of a run, from the leader; raises RUN_NOT_FOUND."""
        subjects = self._location.run(key)
        message = await self._messages.last(subjects.stream, subjects.all)
        record = None if message is None else Record(message.sequence, message.data)
        if record is None or record.deleted or record.key != key:
            raise run_not_found(key.run_id)
        return record

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on."""
        after = max(after, 0)
        start = self._marked(key, after)
        chunks = [] if start is None else await self._chunks(key, start, after, max_bytes, created_ns)
        if chunks and chunks[0].first_sequence <= after + 1:
            return chunks
        return await self._patiently(partial(self._look_up, key, after, max_bytes, created_ns))

    async def find_repeated(self, key: RunKey, batch: ProducerBatch, repeated: Repeated) -> BatchReceipt:
        """Answer a batch that is stored already, or raise PRODUCER_CONFLICT if its content is another one."""
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
            raise data_loss(f"events from {after + 1} on are missing")
        return chunks

    async def _stored_events(self, key: RunKey, batch: ProducerBatch, repeated: Repeated) -> dict[int, Event]:
        """A producer's events by their numbers, those of a batch among them."""
        last = await self.last(key)
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
        return stored

    async def _start(self, key: RunKey, after: int, last: Record) -> int:
        """Where in the stream the message is that holds the event behind `after`."""
        if not after:
            return 0
        return (await self._find(self._location.run(key), last, lambda record: record.last_sequence > after)).sequence

    async def _find(self, subjects: RunSubjects, last: Record, holds: Callable[[Record], bool]) -> Record:
        """The first record of a run for which something holds that holds for all later ones, up to the last.

        Looks near the end first, in steps that grow; then halves what is left.
        """
        found, low, high, step = last, 0, last.sequence, 1
        near_end = True
        while low < high:
            middle = max(low, high - step) if near_end else (low + high) // 2
            record = await self._next(subjects, middle)
            if record.stamps.order == last.stamps.order and holds(record):
                found, high = record, middle
                step *= 4
            else:
                low = record.sequence + 1
                near_end = False
        return found

    async def _next(self, subjects: RunSubjects, sequence: int) -> Record:
        """The first record at or behind a place at which the leader has one."""
        message = await self._messages.next(subjects.stream, subjects.all, sequence)
        if message is None:
            raise _Lagging
        return Record(message.sequence, message.data)

    async def _chunks(self, key: RunKey, start: int, after: int, max_bytes: int, created_ns: int | None) -> list[Chunk]:
        """Read on from a place of the stream until there are events; none: there is nothing more yet."""
        chunks: list[Chunk] = []
        size = 0
        while not chunks and (records := await self._records(key, start, max_bytes + _OVERHEAD)):
            for record in records:
                start = record.sequence + 1
                if record.deleted:
                    chunks.clear()
                    continue
                if created_ns not in (None, record.create_ns):
                    raise run_not_found(key.run_id)
                for _, chunk in record.batches if size < max_bytes else ():
                    if chunk.last_sequence <= after or size >= max_bytes:
                        continue
                    if chunks and chunk.first_sequence != chunks[-1].last_sequence + 1:
                        raise data_loss(f"events from {chunks[-1].last_sequence + 1} on are missing")
                    chunks.append(chunk)
                    size += len(chunk.data)
                self._mark(record)
        return chunks

    async def _records(self, key: RunKey, start: int, max_bytes: int) -> list[Record]:
        subjects = self._location.run(key)
        found = await self._messages.following(subjects.stream, subjects.all, start, max_bytes)
        records = [Record(message.sequence, message.data) for message in found]
        if any(record.key != key for record in records):
            raise data_loss("a stored record is not of the run that it is kept for")
        return records

    async def _patiently(self, look: Callable[[], Awaitable[_Found]]) -> _Found:
        """Look again, from the leader on, until the servers that are read from have what it has."""
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
