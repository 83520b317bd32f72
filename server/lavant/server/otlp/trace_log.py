"""Logs of traces, which several servers append to."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lavant.contract.limits import MAX_BATCH_BYTES
from lavant.server.auth.principal import Principal
from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError
from lavant.server.model import RunKey, is_system_run, is_terminal
from lavant.server.otlp.received import ReceivedSpan, received_again
from lavant.server.otlp.trace_content import TraceContent
from lavant.server.store.ownership import NOBODY
from lavant.server.store.port import Engine
from lavant.server.store.system_logs import OverwrittenError, SystemLogs
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run, RunSettings

_PRODUCER = "otlp"  # of all servers: its sequence is what they compare and swap
_EPOCH = 1
_BATCH_EVENTS = 250  # whose rules are checked in one piece on the event loop
_BATCH_BYTES = MAX_BATCH_BYTES - (64 << 10)
_OVERWRITTEN = {
    ErrorReason.ERROR_REASON_PRODUCER_CONFLICT,
    ErrorReason.ERROR_REASON_PRODUCER_GAP,
    ErrorReason.ERROR_REASON_PRODUCER_FENCED,
    ErrorReason.ERROR_REASON_RUN_SEALED,
    ErrorReason.ERROR_REASON_RUN_EXISTS,
    ErrorReason.ERROR_REASON_RUN_NOT_FOUND,
}


@dataclass(slots=True)
class TraceLog:
    """A log that spans of a trace are recorded in, as far as this server has read it.

    `sent` is the last sequence of the producer of all servers.
    """

    key: RunKey
    content: TraceContent = field(default_factory=TraceContent)
    sent: int = 0
    is_sealed: bool = False

    @property
    def exists(self) -> bool:
        """Whether spans were recorded in it."""
        return self.sent > 0


class TraceLogs:
    """Reads logs of traces, and appends to them.

    All servers append as one producer, so that its sequence shows each of them whether it has read what the others
    wrote: OverwrittenError is raised if not, or if the log was sealed or deleted meanwhile. Read it again then.
    """

    def __init__(self, engine: Engine, clock: Clock, quotas: RunQuotas) -> None:
        self._engine = engine
        self._clock = clock
        self._quotas = quotas
        self._logs = SystemLogs(engine, clock)

    async def read(self, log: TraceLog, run: Run) -> None:
        """Read a log that exists from its start."""
        # An empty batch is answered with the producer's last sequence. What is read afterwards includes all up to it.
        log.sent = (await self._stored(log, ProducerBatch())).last_producer_sequence
        log.content = TraceContent()
        async for event in self._logs.read_on(log.key, 0):
            log.content.add([event])
            log.is_sealed = log.is_sealed or event.HasField("run_finished")
        # A run of the same ID that somebody else has made is none of the trace's.
        log.is_sealed = log.is_sealed or is_terminal(run.state) or not log.content.is_unordered

    async def received(self, log: TraceLog) -> list[ReceivedSpan]:
        """Read the spans of a log, as they were received."""
        found: list[ReceivedSpan] = []
        if log.exists:
            async for event in self._logs.read_on(log.key, 0):
                if event.source.content:
                    found += received_again(event.source)
        return found

    async def append(
        self,
        log: TraceLog,
        events: Sequence[Event],
        *,
        create: RunSettings | None = None,
        principal: Principal | None = None,
    ) -> None:
        """Append events to a log within the quotas of a principal, and add them to its content."""
        for part in _batches(events):
            batch = ProducerBatch(first_producer_sequence=log.sent + 1, events=part)
            await self._stored(log, batch, create, principal)
            log.content.add(part)
            log.sent += len(part)
            create = None

    async def finish(self, log: TraceLog) -> None:
        """End the run of a log."""
        event = Event(event_id=f"finished.{log.sent}", run_finished=log.content.finished())
        event.event_time.FromNanoseconds(self._clock.time_ns())
        await self.append(log, [event])
        log.is_sealed = True

    async def delete(self, log: TraceLog) -> None:
        """Delete a log that is sealed."""
        try:
            await self._engine.delete_run(log.key)
        except ServiceError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise

    async def silence(self, log: TraceLog) -> float:
        """Return the seconds since a log last changed."""
        run = await self._engine.find_run(log.key)
        if run is None or run.last_sequence != log.content.sequence:
            raise OverwrittenError
        return (self._clock.time_ns() - run.update_time.ToNanoseconds()) / 1e9

    async def _stored(
        self,
        log: TraceLog,
        batch: ProducerBatch,
        create: RunSettings | None = None,
        principal: Principal | None = None,
    ) -> BatchReceipt:
        """Return the receipt of a batch. It is stored even if the caller is cancelled meanwhile."""
        batch.run_id, batch.producer_id, batch.producer_epoch = log.key.run_id, _PRODUCER, _EPOCH
        is_own = is_system_run(log.key)  # one of these is no run of the caller's
        if create is not None and not is_own:
            batch.create.CopyFrom(create)
        counted = None if principal is None else self._quotas.admit_batch(principal, batch, None)
        if create is not None and is_own:
            batch.create.CopyFrom(create)
        restriction = None if principal is None or is_own else principal.restriction
        stored = self._engine.append(log.key, batch, NOBODY, restriction)
        if counted is not None:
            stored.add_done_callback(counted)
        try:
            return await asyncio.shield(stored)
        except ServiceError as error:
            if error.reason in _OVERWRITTEN:
                raise OverwrittenError from None
            raise


def _batches(events: Sequence[Event]) -> Iterable[list[Event]]:
    batch: list[Event] = []
    size = 0
    for event in events:
        each = event.ByteSize()
        if batch and (len(batch) == _BATCH_EVENTS or size + each > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += each
    if batch:
        yield batch
