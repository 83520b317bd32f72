"""The way of a run's events from this process to the server: queued, numbered, sent, acknowledged."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

from lavant.client import _payloads
from lavant.client._async.concurrency import Home, Lock, Signal, monotonic
from lavant.client._async.connection import Connection
from lavant.client._async.delivery import Delivery
from lavant.client._async.sender import HEARTBEAT, MISSED_HEARTBEATS, Sender
from lavant.client._errors import (
    InvalidField,
    LavantError,
    ProducerError,
    ProducerOverloaded,
    QuotaExceeded,
    RunCancelled,
)
from lavant.client._fitting import CHANGED
from lavant.client._models import ErrorInfo, FieldViolation, Receipt, RunResult
from lavant.client._options import OnError, ProducerOptions
from lavant.client._outbox import Kind, Outbox
from lavant.client._payloads import error_of
from lavant.client._states import RunState
from lavant.client._trace import TraceSource, trace_source
from lavant.v1.event_pb2 import Event, RunStarted
from lavant.v1.run_pb2 import RUN_STATE_FAILED
from lavant.v1.run_service_pb2 import CreateRunRequest

_log = logging.getLogger("lavant.client")

# What makes a run's last events, given what keeps those before them from being stored, if anything does.
MakeLast = Callable[[Exception | None], Sequence[Event]]


class Publisher:
    """One run's queue and its sender. `changed` is notified of receipts, failures and requests to cancel.

    The sender's task or thread owns all that takes time: `begin` and `end` only queue, and what they began goes on
    even if whoever waits for it is cancelled.

    `on_error="log"`: nothing raises. What cannot be published is logged, once per run, and costs only itself; without
    room in the queue, events are dropped and counted, and the log has a marker in their place. During an outage
    nobody waits.
    """

    def __init__(
        self, connection: Connection, create: CreateRunRequest, options: ProducerOptions, on_error: OnError
    ) -> None:
        self.changed = Signal()
        self.cancel_reason: str | None = None
        self.run_id = create.run_id
        self.raises = on_error == "raise"
        self._connection = connection
        self._options = options
        self._lock = Lock()
        self._outbox = Outbox(
            *(create.run_id, options.producer_id, options.producer_epoch, options.queue_bytes), mends=not self.raises
        )
        silence = create.producer_timeout.ToMilliseconds() / 1000
        self._sender = Sender(
            connection,
            create,
            self._outbox,
            self.changed,
            heartbeat=min(silence / MISSED_HEARTBEATS / 2 or HEARTBEAT, HEARTBEAT),
            on_cancel_request=self._cancel,
            on_created=lambda: connection.open_runs.note_created(self),
            on_failure=self._on_failure,
            on_over=self._on_over,
        )
        self.delivery = Delivery(connection, self._outbox, self._sender, self.changed)
        self._home: Home | None = None
        self._trace: TraceSource = trace_source()
        self._numbers = count(1)
        self._first = Event()
        self._make_last: MakeLast | None = None
        self._end_error: Exception | None = None
        self._began = 0.0
        self._dropped = self._dropped_alone = 0
        self._has_begun = self._has_ended = self._has_logged = self._has_reported_change = self._gave_up = False

    @property
    def last_receipt(self) -> Receipt | None:
        """Where the last batch ended up."""
        return self._outbox.last_receipt

    def is_open(self, kind: Kind, key: str) -> bool:
        """Tell whether a step, message or tool call has started and not finished."""
        return self._outbox.is_open(kind, key)

    @property
    def seconds(self) -> float:
        """How long ago the run began."""
        return monotonic() - self._began

    @property
    def failure(self) -> Exception | None:
        """Why not all was stored; None if it was, or still may be."""
        return self._end_error or self._outbox.failure

    def begin(self, first: Event) -> None:
        """Queue the run's first event and begin to send: first of all, the creation of the run. Never waits.

        A run whose first event is refused begins with one that says nothing; a strict one ends with the error.
        """
        with self._lock:
            if self._has_begun:
                return
            self._has_begun, self._began = True, monotonic()
            try:
                self._home = self._connection.home()
            except Exception as error:
                self._outbox.fail(_as_failure(error))
                if self.raises:
                    raise
                self._has_logged = True
                self._connection.log_once(f"runs are not recorded: {error}")
                return
            self._connection.open_runs.add(self)
            try:
                self._put_first(first)
            finally:
                self._send()

    def _put_first(self, first: Event) -> None:
        self._first = first
        try:
            self._put((first,))
        except Exception as error:
            self._first = Event(run_started=RunStarted())
            self._put((self._first,))
            described = error_of(error)
            if self.raises:
                self.end(lambda _: [_payloads.run_finished(RUN_STATE_FAILED, None, described, None, 0.0)])
                message = f"run {self.run_id} has ended: its input cannot be published: {described.message}"
                raise InvalidField(message, violations=getattr(error, "violations", ())) from None
            self.refuse(error)

    async def publish(self, event: Event) -> None:
        """Queue an event, waiting for room if need be."""
        await self.wait_for_room()
        self.enqueue(event)

    async def wait_for_room(self) -> None:
        """Wait until an event can be queued, or for too long: then `enqueue` raises or drops it."""
        if not self._outbox.has_room() and (self.raises or not self._dropped):
            await self.delivery.wait_for_room(self._options.block_timeout, patient=self.raises)

    def admits(self) -> bool:
        """Tell whether an event would be queued now; raise what queueing it would raise, or count it as dropped."""
        try:
            self._check_open()
            if self._outbox.has_room():
                return True
            self._drop(1)
        except Exception as error:
            self.refuse(error)
        return False

    def enqueue(self, *events: Event, closing: bool = False) -> None:
        """Queue events, all or none, without ever waiting.

        `closing` events end what has begun: for them there is always room.
        """
        try:
            with self._lock:
                self._check_open()
                if self._outbox.has_room() or (closing and not self._dropped):
                    self.enqueue_admitted(*events)
                else:
                    self._drop(len(events))
        except Exception as error:
            self.refuse(error)

    def enqueue_admitted(self, *events: Event) -> None:
        """Queue events for which there is room."""
        try:
            if self._dropped:
                self._report_dropped()
            self._put(events)
            if self._sender.has_ended:
                self._send()
        except Exception as error:
            self.refuse(error)

    def end(self, make_last: MakeLast) -> None:
        """Queue the run's last events, room or not, and stop sending once they are durable. Never waits.

        Only the first call counts.
        """
        with self._lock:
            if self._has_ended or not self._has_begun:
                return
            self._make_last = make_last
            if self._outbox.failure is None:
                self._put_last(None)
            else:
                self._give_up_refused()
            self._has_ended = True  # Only now: an interrupt may have come, and what ends open runs does it again.
            self._sender.finish(parks=not self.raises)
            if self._outbox.failure is None:
                self._send()
            else:
                self._connection.open_runs.discard(self)

    def end_unleft(self, why: str) -> None:
        """End a run that nobody has ended as cancelled; go on with the end of one that was."""

        def make_last(_: Exception | None) -> Sequence[Event]:
            reason = ErrorInfo(message=f"{why} before the run was ended")
            error = RunCancelled(RunResult(run_id=self.run_id, state=RunState.CANCELLED, error=reason))
            return [
                _payloads.run_finished(_payloads.state_of(error), None, error_of(error), None, self.seconds),
            ]

        self.end(make_last)
        self._sender.finish(parks=True)
        if self._outbox.failure is None:
            self._send()

    async def wait_ended(self) -> None:
        """Wait until the run's end is durable, as long as the options say. Raises what prevents it if it is strict."""
        patience = self._options.close_seconds(raises=self.raises)
        is_over = await self.delivery.wait_over(patience, patient=self.raises)
        if self.raises and self.failure is not None:
            raise self.failure
        if self.raises and not is_over:
            self._sender.finish(parks=True)
            raise self._not_durable(patience)

    async def flush(self, timeout: float | None) -> bool:
        """Wait until everything queued is durable; tell whether it is. Raises what prevents it if the run is strict.

        Unless the run is strict or there is a timeout, the wait ends when the server is known to be out of reach.
        """
        is_durable = await self.wait_durable(timeout)
        if self.raises and self._outbox.failure is not None:
            raise self._outbox.failure
        if self.raises and not is_durable:
            raise self._not_durable(timeout or 0.0)
        return is_durable

    async def wait_durable(self, timeout: float | None) -> bool:
        """Wait until everything queued is durable; tell whether it is."""
        with self._lock:
            if self._has_begun and self._outbox.failure is None and not self._outbox.is_empty:
                self._send()
        return await self.delivery.wait_durable(timeout, patient=self.raises or timeout is not None)

    def disown(self) -> None:
        """Leave the run to the process that this one was forked from: it is sent, and ended, there."""
        # Threads that exist there alone may have held these.
        self._lock = Lock()
        self.changed.renew()
        self._outbox.fail(ProducerError(f"run {self.run_id} belongs to the process that began it, not to a fork of it"))
        self._has_ended, self._make_last = True, lambda _: ()
        self._sender.disown()

    def hang_up(self) -> None:
        """Give up what is not durable by now, and count it. Nothing is taken any more."""
        self.count_lost()
        self._outbox.fail(ProducerError(f"run {self.run_id}: the client is closed"))
        self._sender.hang_up()

    def count_lost(self) -> None:
        """Count what is not durable by now as lost."""
        if lost := self._outbox.count:
            self._connection.outage.drop(self.run_id, lost)

    async def close(self) -> None:
        """Wait until nothing is sent any more."""
        await self._sender.close()
        self._connection.open_runs.discard(self)

    def refuse(self, error: Exception) -> None:
        """Raise the error, or log it: the first of the run."""
        if self.raises:
            raise error
        self._log(f"run {self.run_id} is not recorded as it happens: {error_of(error).message}")
        self.changed.notify()

    def _log(self, message: str) -> None:
        if not self._has_logged:
            self._has_logged = True
            _log.warning(message)

    def _check_open(self) -> None:
        if not self._has_begun:
            raise RuntimeError("enter the run's block or call its begin: `async with client.runs.start(...) as run`")
        if self._outbox.failure is not None:
            raise self._outbox.failure
        if self._make_last is not None:
            raise ProducerError(f"run {self.run_id}: its block was left; publish within it")

    def _drop(self, number: int) -> None:
        """Raise ProducerOverloaded, or drop events for want of room."""
        if self.raises:
            self._outbox.check()
        self._dropped += number
        if self._connection.outage.is_on:
            self._connection.outage.drop(self.run_id, number)
        else:
            self._dropped_alone += number

    def _report_dropped(self) -> None:
        """Mark in the log that events were dropped; log those that the end of an outage does not report."""
        if self._dropped:
            number, self._dropped = self._dropped, 0
            message = f"{number} events were dropped here: the queue was full"
            self._put((_payloads.error_reported(_payloads.error_said(message)),))
        if self._dropped_alone:
            number, self._dropped_alone = self._dropped_alone, 0
            message = "run %s: %d events were dropped: its queue was full; ProducerOptions has queue_bytes"
            _log.warning(message, self.run_id, number)

    def _put(self, events: Sequence[Event]) -> None:
        for event in events:
            self._stamp(event)
            if event.attributes and CHANGED in event.attributes:
                self._report_change(event.WhichOneof("payload") or "event", event.attributes[CHANGED])
        if (refusal := self._outbox.put(*events)) is not None:
            self._report_change("event", refusal.message)
        self.changed.notify()

    def _report_change(self, path: str, description: str) -> None:
        """Log once that values do not reach the log as they were given, or raise InvalidField for it."""
        if self.raises:
            violation = FieldViolation(path=path, description=description)
            raise InvalidField(f"{path}: {description}", violations=(violation,))
        if not self._has_reported_change:
            self._has_reported_change = True
            _log.warning("run %s: not all is recorded as it was given: %s: %s", self.run_id, path, description)

    def _put_last(self, refused: Exception | None) -> None:
        """Queue the last events; where the right ones cannot be queued, those that say why."""
        try:
            self._report_dropped()
            self._put(self._make_last(refused) if self._make_last else ())
        except Exception as error:
            if self._outbox.is_sealed:  # by an event that the caller has published
                return
            if refused is not None:
                self._outbox.fail(_as_failure(error))
                return
            self._end_error = error
            if not self.raises:
                self._log(f"run {self.run_id}: its end is not recorded as it was: {error_of(error).message}")
            self._put_last(error)

    def _send(self) -> None:
        """Send where nothing is sent: at first, where the sender was cancelled, or its event loop is closed."""
        if not self._sender.is_over:
            return
        # Outside of an event loop, or where no thread can be started, what is queued waits for the process's exit.
        with suppress(RuntimeError, LavantError):
            if self._home is None or self._home.is_gone:
                self._home = self._connection.home()
            self._home.call(self._sender.start)

    def _on_failure(self, failure: LavantError) -> bool:
        """Log a failure for good; tell whether the run's end can be sent in spite of it."""
        if not self.raises and not isinstance(failure, ProducerOverloaded):
            self._log(f"run {self.run_id} is not recorded any further: {failure.message}")
        with self._lock:
            return self._make_last is not None and (self._give_up_refused() or self._outbox.failure is None)

    def _give_up_refused(self) -> bool:
        """Drop what the server refused for its content, and what came after, and queue the run's end nevertheless."""
        refused = self._outbox.failure
        if self._gave_up or not isinstance(refused, InvalidField | QuotaExceeded) or not self._sender.is_created:
            return False
        self._gave_up, self._end_error = True, refused
        self._outbox.drop()
        if self._outbox.last_receipt is None:
            self._put((self._first,))
        self._put_last(refused)
        return True

    def _on_over(self) -> None:
        if self._outbox.failure is not None or (self._make_last is not None and self._outbox.is_empty):
            self._connection.open_runs.discard(self)

    def _not_durable(self, seconds: float) -> ProducerOverloaded:
        message = f"run {self.run_id}: not all is durable after {seconds:g} s: is the server in reach?"
        return ProducerOverloaded(f"{message} What is left is still sent while the client is open")

    def _stamp(self, event: Event) -> None:
        event.event_id = event.event_id or self._event_id()
        try:
            if not event.HasField("event_time"):
                event.event_time.FromNanoseconds(self._options.clock())
            self._trace(event)
        except Exception:  # of the caller's clock, or of OpenTelemetry
            if self.raises:
                raise
            event.event_time.GetCurrentTime()

    def _event_id(self) -> str:
        return f"{self._options.producer_id}.{self._options.producer_epoch}.{next(self._numbers)}"

    def _cancel(self, reason: str) -> None:
        self.cancel_reason = reason
        self.changed.notify()


def _as_failure(error: Exception) -> LavantError:
    return error if isinstance(error, LavantError) else ProducerError(error_of(error).message)
