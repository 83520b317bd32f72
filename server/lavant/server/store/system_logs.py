"""Logs of system runs, which only the server writes: every append is a compare-and-swap on the log's length."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from lavant.internal.v1.system_record_pb2 import SystemEvent, SystemRecord
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, unavailable
from lavant.server.model import RunKey
from lavant.server.store.port import Engine
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch, ProducerBatch
from lavant.v1.run_pb2 import RunSettings

_PRODUCER = "lavant"
_EPOCH = 1
_READ_BYTES = 256 << 10
_CONFLICTS = (ErrorReason.ERROR_REASON_PRODUCER_CONFLICT, ErrorReason.ERROR_REASON_PRODUCER_GAP)


def system_event(record: SystemRecord) -> Event:
    """Return an event that holds a record of the server itself, in a field that Event keeps without knowing it."""
    return Event.FromString(SystemEvent(record=record).SerializeToString())


def system_record(event: Event) -> SystemRecord | None:
    """Return the record that an event holds; None if its payload is a public one."""
    if event.WhichOneof("payload") is not None:
        return None
    return SystemEvent.FromString(event.SerializeToString()).record


class OverwrittenError(Exception):
    """Another writer has appended to the log first."""


class SystemLogs:
    """Reader and writer of logs of system runs: each event's sequence is its producer sequence too."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def append(
        self, key: RunKey, after: int, events: Sequence[Event], *, create: RunSettings | None = None
    ) -> None:
        """Append events after a sequence. Raises OverwrittenError if that is no longer the head, or RUN_SEALED.

        With `create` the run is created in the same commit, if it does not exist. The events are appended even if the
        caller is cancelled meanwhile.
        """
        now = self._clock.time_ns()
        for sequence, event in enumerate(events, after + 1):
            event.event_id = f"lavant.{sequence}{event.event_id}"
            if not event.HasField("event_time"):
                event.event_time.FromNanoseconds(now)
        batch = ProducerBatch(
            run_id=key.run_id,
            producer_id=_PRODUCER,
            producer_epoch=_EPOCH,
            first_producer_sequence=after + 1,
            events=events,
            create=create,
        )
        try:
            receipt = await asyncio.shield(self._engine.append(key, batch))
        except ServiceError as error:
            if error.reason in _CONFLICTS:
                raise OverwrittenError from None
            raise
        if receipt.duplicate:
            raise OverwrittenError

    async def read(self, key: RunKey, after: int, until: int, created_ns: int | None = None) -> AsyncIterator[Event]:
        """Yield the events after a sequence, up to another; only of the run created at `created_ns`.

        Raises UNAVAILABLE if the server that is read from does not have all of them yet.
        """
        while after < until:
            chunks = await self._engine.read(key, after, _READ_BYTES, created_ns)
            if not chunks:
                raise unavailable("what was stored last cannot be read yet; try again")
            for chunk in chunks:
                for event in EventBatch.FromString(chunk.data).events:
                    if after < event.sequence <= until:
                        yield event
                after = max(after, chunk.last_sequence)

    async def read_on(self, key: RunKey, after: int) -> AsyncIterator[Event]:
        """Yield the events after a sequence, as many as there are; none if the run does not exist."""
        while True:
            try:
                chunks = await self._engine.read(key, after, _READ_BYTES)
            except ServiceError as error:
                if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                    raise
                return
            if not chunks:
                return
            for chunk in chunks:
                for event in EventBatch.FromString(chunk.data).events:
                    if event.sequence > after:
                        after = event.sequence
                        yield event
