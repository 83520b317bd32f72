"""Logs that the server writes by itself: every append is a compare-and-swap on the log's length."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, unavailable
from lavant.server.model import RunKey
from lavant.server.store.port import Engine
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch, ProducerBatch

_PRODUCER = "lavant"
_EPOCH = 1
_READ_BYTES = 256 << 10
_CONFLICTS = (ErrorReason.ERROR_REASON_PRODUCER_CONFLICT, ErrorReason.ERROR_REASON_PRODUCER_GAP)


class OverwrittenError(Exception):
    """Somebody else has appended to the log first."""


class OwnLogs:
    """Reads and writes logs of which every event is the server's: its sequence is its producer's number too."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def append(self, key: RunKey, after: int, events: Sequence[Event]) -> None:
        """Append events behind a sequence; raises OverwrittenError if it is not the last any more, or RUN_SEALED.

        Also if the caller is cancelled meanwhile.
        """
        now = self._clock.time_ns()
        for sequence, event in enumerate(events, after + 1):
            event.event_id = f"lavant.{sequence}{event.event_id}"
            event.event_time.FromNanoseconds(now)
        batch = ProducerBatch(
            run_id=key.run_id,
            producer_id=_PRODUCER,
            producer_epoch=_EPOCH,
            first_producer_sequence=after + 1,
            events=events,
        )
        try:
            receipt = await asyncio.shield(self._engine.append(key, batch))
        except LavantError as error:
            if error.reason in _CONFLICTS:
                raise OverwrittenError from None
            raise
        if receipt.duplicate:
            raise OverwrittenError

    async def read(self, key: RunKey, after: int, until: int, created_ns: int | None = None) -> AsyncIterator[Event]:
        """The events behind a sequence up to another; only of the run created at that time.

        Raises UNAVAILABLE if the store has not got that far yet where it is read from.
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
