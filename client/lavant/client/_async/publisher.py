"""The way of a run's events from this process to the server: queued, numbered, sent, acknowledged."""

import logging

from lavant.client._async.concurrency import Signal, monotonic
from lavant.client._async.connection import Connection
from lavant.client._async.sender import HEARTBEAT, MISSED_HEARTBEATS, Sender
from lavant.client._errors import InvalidField, LavantError, ProducerError, ProducerOverloaded, QuotaExceeded
from lavant.client._fitting import CHANGED
from lavant.client._models import FieldViolation, Receipt
from lavant.client._options import OnError, ProducerOptions
from lavant.client._outbox import Kind, Outbox
from lavant.client._payloads import error_of
from lavant.client._trace import TraceSource, trace_source
from lavant.v1.event_pb2 import Event
from lavant.v1.run_service_pb2 import CreateRunRequest

_log = logging.getLogger("lavant.client")


class Publisher:
    """One run's queue and its sender. `changed` is notified of receipts, failures and requests to cancel.

    `on_error="log"`: what cannot be published is no error: from the first refusal on it logs a warning
    and drops everything, so that the log has no hole; RunFinished is a failure then, if it can be published.
    """

    def __init__(
        self, connection: Connection, create: CreateRunRequest, options: ProducerOptions, on_error: OnError
    ) -> None:
        self.changed = Signal()
        self.cancel_reason: str | None = None
        self.lost: Exception | None = None
        self._connection = connection
        self._create = create
        self._options = options
        self.raises = on_error == "raise"
        self._outbox = Outbox(
            *(create.run_id, options.producer_id, options.producer_epoch, options.queue_bytes), mends=not self.raises
        )
        self._changes_reported = False
        self._sender: Sender | None = None
        self._trace: TraceSource = trace_source()
        self._count = 0
        self._opened = False

    @property
    def last_receipt(self) -> Receipt | None:
        """Where the last batch ended up."""
        return self._outbox.last_receipt

    def is_open(self, kind: Kind, key: str) -> bool:
        """Tell whether a step, message or tool call has started and not finished."""
        return self._outbox.is_open(kind, key)

    async def open(self) -> None:
        """Create the run and begin to send."""
        self._opened = True
        timeout = None if self.raises else self._options.block_timeout
        try:
            await self._connection.call(lambda lane: lane.runs.CreateRun, self._create, timeout)
        except LavantError as error:
            self._outbox.fail(error)
            self.refuse(error)
            return
        self._sender = self._new_sender()

    def _new_sender(self) -> Sender:
        silence = self._create.producer_timeout.ToMilliseconds() / 1000
        return Sender(
            self._connection,
            self._outbox,
            self.changed,
            heartbeat=min(silence / MISSED_HEARTBEATS / 2 or HEARTBEAT, HEARTBEAT),
            on_cancel_request=self._cancel,
        )

    async def publish(self, event: Event) -> None:
        """Queue an event, waiting for room if need be."""
        await self.wait_for_room()
        self.enqueue(event)

    async def wait_for_room(self) -> None:
        """Wait until an event can be queued, or for too long: then `enqueue` raises ProducerOverloaded."""
        if not self._has_room():
            await self.changed.wait_for(self._has_room, self._options.block_timeout)

    def check_room(self) -> None:
        """Refuse now what `enqueue` would refuse for want of room, or because nothing is taken any more."""
        self._check_opened()
        try:
            self._outbox.check()
        except LavantError as error:
            self.refuse(error)

    def enqueue(self, *events: Event) -> None:
        """Queue events, all or none, without ever waiting."""
        self._check_opened()
        if self.lost is not None:
            return
        try:
            self._put(events)
        except LavantError as error:
            self.refuse(error)

    async def give_up_refused(self) -> bool:
        """Drop what the server refused for its content, and what came behind it, so that the run can still end.

        Tells whether the run's first event was among these.
        """
        if self._sender is None or not isinstance(self._outbox.failure, InvalidField | QuotaExceeded):
            return False
        await self._sender.close()
        self._outbox.drop()
        self._sender = self._new_sender()
        return self._outbox.last_receipt is None

    async def finish(self, timeout: float, *events: Event) -> None:
        """Queue the run's last event, also after others were dropped, and wait until all is durable.

        Raises what prevents it, whatever `on_error` says.
        """
        deadline = monotonic() + timeout
        await self.changed.wait_for(self._outbox.has_room, timeout)
        self._put(events)
        await self._drain(max(0.0, deadline - monotonic()))

    async def flush(self, timeout: float | None) -> None:
        """Wait until everything queued is durable."""
        try:
            await self._drain(timeout)
        except LavantError as error:
            self.refuse(error)

    async def close(self) -> None:
        """End the call. What is not durable by now is given up, and nothing is taken any more."""
        try:
            if self._sender is not None:
                await self._sender.close()
        finally:
            self._outbox.fail(ProducerError(f"run {self._create.run_id}: its block was left; publish within it"))
            self.changed.notify()

    def refuse(self, error: Exception) -> None:
        """Raise the error, or log the first and drop every event from now on."""
        if self.raises:
            raise error
        if self.lost is None:
            self.lost = error
            _log.warning("run %s is not recorded any further: %s", self._create.run_id, error_of(error).message)
        self.changed.notify()

    def _has_room(self) -> bool:
        return self.lost is not None or self._outbox.has_room()

    async def _drain(self, timeout: float | None) -> None:
        await self.changed.wait_for(lambda: self._outbox.is_empty or self._outbox.failure is not None, timeout)
        if self._outbox.failure is not None:
            raise self._outbox.failure
        if not self._outbox.is_empty:
            message = f"run {self._create.run_id}: not all is durable after {timeout:g} s: is the server in reach?"
            raise ProducerOverloaded(message)

    def _check_opened(self) -> None:
        if not self._opened:
            raise RuntimeError("use the run within its block: `async with client.runs.start(...) as run`")

    def _put(self, events: tuple[Event, ...]) -> None:
        self._outbox.check()
        for event in events:
            self._stamp(event)
            if event.attributes and CHANGED in event.attributes:
                self._report_change(event.WhichOneof("payload") or "event", event.attributes[CHANGED])
        if (refusal := self._outbox.put(*events)) is not None:
            self._report_change("event", refusal.message)
        self.changed.notify()

    def _report_change(self, path: str, description: str) -> None:
        """Say once that values do not reach the log as they were given. Raises InvalidField if that is to be raised."""
        if self.raises:
            violation = FieldViolation(path=path, description=description)
            raise InvalidField(f"{path}: {description}", violations=(violation,))
        if not self._changes_reported:
            self._changes_reported = True
            _log.warning("run %s: not all is recorded as it was given: %s: %s", self._create.run_id, path, description)

    def _stamp(self, event: Event) -> None:
        self._count += 1
        event.event_id = event.event_id or self._event_id()
        if not event.HasField("event_time"):
            event.event_time.FromNanoseconds(self._options.clock())
        self._trace(event)

    def _event_id(self) -> str:
        return f"{self._options.producer_id}.{self._options.producer_epoch}.{self._count}"

    def _cancel(self, reason: str) -> None:
        self.cancel_reason = reason
        self.changed.notify()
