"""Publishing of one run: its events are queued, numbered, sent, and acknowledged."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

from lavant.client._async.backlog import LAST_SECONDS
from lavant.client._async.concurrency import Lock, Runtime, Signal, monotonic
from lavant.client._async.sender import HEARTBEAT, MISSED_HEARTBEATS, Sender
from lavant.client._async.transport import Connection
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.fitting import CHANGED
from lavant.client._publishing.guard import Guard
from lavant.client._publishing.outbox import Kind, Outbox
from lavant.client._publishing.payloads import error_of
from lavant.client._wire.trace import TraceSource, trace_source
from lavant.client.errors import (
    InvalidField,
    LavantError,
    ProducerError,
    ProducerOverloaded,
    QuotaExceeded,
    RunCancelled,
    Unavailable,
)
from lavant.client.models import ErrorInfo, FieldViolation, Receipt, RunResult
from lavant.client.options import OnError, ProducerOptions
from lavant.client.states import RunState
from lavant.contract.limits import NANOS
from lavant.v1.event_pb2 import Event, RunStarted
from lavant.v1.run_pb2 import RUN_STATE_FAILED
from lavant.v1.run_service_pb2 import CreateRunRequest


class Delivery:
    """Bounded waits for a run's creation, its events' receipts and its end. All times are in seconds."""

    def __init__(self, connection: Connection, outbox: Outbox, sender: Sender, changed: Signal) -> None:
        self._connection = connection
        self._outage = connection.outage
        self._outbox = outbox
        self._sender = sender
        self._changed = changed

    async def wait_created(self, timeout: float) -> None:
        """Wait until the run exists. Raises what prevents it, Unavailable after `timeout`."""
        sender = self._sender
        self._send_now()
        await self._changed.wait_for(lambda: sender.is_created or self._outbox.failure is not None, timeout)
        if self._outbox.failure is not None:
            raise self._outbox.failure
        if not sender.is_created:
            raise sender.trouble or Unavailable(f"the run was not created within {timeout:g} s")

    async def wait_known(self, timeout: float) -> None:
        """Wait until readers can find the run, or until it is known that they cannot."""
        sender, outbox, outage = self._sender, self._outbox, self._outage
        self._send_now()
        await self._changed.wait_for(
            lambda: sender.is_created or sender.is_over or outbox.failure is not None or outage.is_on, timeout
        )

    def _send_now(self) -> None:
        self._outbox.skip_delay()
        self._changed.notify()

    async def wait_for_capacity(self, timeout: float, *, patient: bool) -> None:
        """Wait until an event can be queued. Unless `patient`, an outage ends the wait."""
        outbox, outage, began = self._outbox, self._outage, monotonic()
        await self._changed.wait_for(lambda: outbox.has_capacity() or (outage.is_on and not patient), timeout)
        self._note_silence(began)

    async def wait_durable(self, timeout: float | None, *, patient: bool) -> bool:
        """Wait until all queued events are durable. Return whether they are.

        Unless `patient`, an outage ends the wait, after one more attempt.
        """
        outbox, outage = self._outbox, self._outage
        self._send_now()
        deadline = None if timeout is None else monotonic() + timeout
        if outage.is_on and not outbox.is_empty:
            await self.probe(LAST_SECONDS if timeout is None else timeout)
        left = None if deadline is None else max(0.0, deadline - monotonic())
        await self._changed.wait_for(
            lambda: outbox.is_empty or outbox.failure is not None or (outage.is_on and not patient), left
        )
        return outbox.is_empty and outbox.failure is None

    async def wait_over(self, timeout: float, *, patient: bool) -> bool:
        """Wait until nothing more is sent. Return whether that is so. Unless `patient`, an outage ends the wait.

        A cancellation takes effect after another two seconds at most.
        """
        sender, outage, began = self._sender, self._outage, monotonic()
        is_over = await self._changed.wait_for(
            lambda: sender.is_over or (outage.is_on and not patient), max(0.0, timeout), shield=LAST_SECONDS
        )
        if sender.is_over:
            await sender.join()
        elif not is_over and not patient:
            self._note_silence(began)
        return sender.is_over

    def _note_silence(self, began: float) -> None:
        """Note that nothing was received since a time, unless the server has asked for a pause."""
        if not isinstance(self._sender.trouble, QuotaExceeded):
            self._outage.note_silence(began)

    async def probe(self, timeout: float) -> bool:
        """Try to send now, and wait for the outcome of the attempt. Return whether there was one."""
        sender, outage, failed = self._sender, self._outage, self._sender.failed_attempts
        if sender.is_over or (sender.is_deferred and sender is not self._connection.backlog.head):
            return False
        self._connection.replace_channels()
        sender.retry()
        await self._changed.wait_for(
            lambda: sender.is_over or not outage.is_on or sender.failed_attempts > failed, max(0.0, timeout)
        )
        return True


_log = logging.getLogger("lavant.client")

# What makes a run's last events, given what keeps those before them from being stored, if anything does.
MakeLast = Callable[[Exception | None], Sequence[Event]]


class Publisher:
    """Queue and sender of one run. `changed` is notified of receipts and failures, `cancellation` of a request to stop.

    The sender's task does all that takes time: `begin` and `end` only queue, and what they start continues if their
    caller is cancelled.

    With `on_error="log"` nothing raises. What cannot be published is logged, once per run, and nothing else is lost
    with it; when the queue is full, events are dropped and counted, and a marker in the log replaces them. During an
    outage nothing waits.
    """

    def __init__(
        self, connection: Connection, create: CreateRunRequest, options: ProducerOptions, on_error: OnError
    ) -> None:
        self.changed = Signal()
        self.cancellation = Signal()  # of its own: whoever waits for it would wake for each receipt
        self.cancel_reason: str | None = None
        self.run_id = create.run_id
        self.guard = Guard(on_error, f"run {create.run_id}")
        self.raises = self.guard.raises
        self._connection = connection
        self._options = options
        self._lock = Lock()
        self._outbox = Outbox(
            *(create.run_id, options.producer_id, options.producer_epoch, options.queue_bytes),
            settings=create.settings,
            repairs_events=not self.raises,
            monotonic=connection.clock.monotonic,
        )
        silence = create.settings.producer_timeout.ToMilliseconds() / 1000
        self._sender = Sender(
            connection,
            self._outbox,
            self.changed,
            heartbeat=min(silence / MISSED_HEARTBEATS / 2 or HEARTBEAT, HEARTBEAT),
            on_cancel_request=self._cancel,
            on_created=lambda: connection.open_runs.note_created(self),
            on_failure=self._on_failure,
            on_over=self._on_over,
        )
        self.delivery = Delivery(connection, self._outbox, self._sender, self.changed)
        self._runtime: Runtime | None = None
        self._trace: TraceSource = trace_source()
        self._id_prefix = f"{options.producer_id}.{options.producer_epoch}."
        self._numbers = count(1)
        self._first = Event()
        self._make_last: MakeLast | None = None
        self._end_error: Exception | None = None
        self._began = 0.0
        self._dropped = self._dropped_alone = 0
        self._has_begun = self._has_ended = self._has_reported_change = self._gave_up = False

    @property
    def last_receipt(self) -> Receipt | None:
        """Receipt of the last stored batch."""
        return self._outbox.last_receipt

    def is_open(self, kind: Kind, key: str) -> bool:
        """Return whether a step, message or tool call has started and not finished."""
        return self._outbox.is_open(kind, key)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return monotonic() - self._began

    @property
    def failure(self) -> Exception | None:
        """The error that kept events from being stored; None if all are stored, or may still be."""
        return self._end_error or self._outbox.failure

    def begin(self, first: Event) -> None:
        """Queue the run's first event and start to send: first the creation of the run. Never waits.

        If the first event is refused, the run begins with an empty one; a strict run ends with the error.
        """
        with self._lock:
            if self._has_begun:
                return
            self._has_begun, self._began = True, monotonic()
            try:
                self._runtime = self._connection.runtime()
            except Exception as error:
                self._outbox.fail(_as_failure(error))
                if self.raises:
                    raise
                self.guard.has_logged = True
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
            self.guard.refuse(error)

    async def publish(self, event: Event) -> None:
        """Queue an event, waiting while the queue is full."""
        await self.wait_for_capacity()
        self.enqueue(event)

    async def wait_for_capacity(self) -> None:
        """Wait until an event can be queued, up to `block_timeout`; afterwards `enqueue` raises or drops it."""
        if not self._outbox.has_capacity() and (self.raises or not self._dropped):
            await self.delivery.wait_for_capacity(self._options.block_timeout, patient=self.raises)

    def admits(self) -> bool:
        """Return whether an event would be queued now. Raises what queueing it would raise, or counts it as dropped."""
        try:  # not `with self.guard`, nor below: these run for every token, and the guard costs a microsecond
            self._check_open()
            if self._outbox.has_capacity():
                return True
            self._drop(1)
        except Exception as error:
            self.guard.refuse(error)
        return False

    def enqueue(self, *events: Event, closing: bool = False) -> None:
        """Queue events, all or none, without waiting.

        `closing` events end something that has begun: they are queued even if the queue is full.
        """
        try:
            with self._lock:
                self._check_open()
                if self._outbox.has_capacity() or (closing and not self._dropped):
                    self.enqueue_admitted(*events)
                else:
                    self._drop(len(events))
        except Exception as error:
            self.guard.refuse(error)

    def enqueue_admitted(self, *events: Event) -> None:
        """Queue events that `admits` has accepted."""
        try:
            if self._dropped:
                self._report_dropped()
            self._put(events)
            if self._sender.has_ended:
                self._send()
        except Exception as error:
            self.guard.refuse(error)

    def end(self, make_last: MakeLast) -> None:
        """Queue the run's last events, even if the queue is full, and stop sending when they are durable. Never waits.

        Only the first call has an effect.
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
            self._sender.finish(may_be_deferred=not self.raises)
            if self._outbox.failure is None:
                self._send()
            else:
                self._connection.open_runs.discard(self)

    def end_open(self, why: str) -> None:
        """End a run that nobody has ended as CANCELLED, and deliver the end of one that was ended."""

        def make_last(_: Exception | None) -> Sequence[Event]:
            reason = ErrorInfo(message=f"{why} before the run was ended")
            error = RunCancelled(RunResult(run_id=self.run_id, state=RunState.CANCELLED, error=reason))
            return [
                _payloads.run_finished(_payloads.state_of(error), None, error_of(error), None, self.seconds),
            ]

        self.end(make_last)
        self._sender.finish(may_be_deferred=True)
        if self._outbox.failure is None:
            self._send()

    async def wait_ended(self) -> None:
        """Wait until the run's end is durable, as long as the options say.

        Raises what prevents it if the run is strict.
        """
        patience = self._options.close_seconds(raises=self.raises)
        is_over = await self.delivery.wait_over(patience, patient=self.raises)
        if self.raises and self.failure is not None:
            raise self.failure
        if self.raises and not is_over:
            self._sender.finish(may_be_deferred=True)
            raise self._not_durable(patience)

    async def flush(self, timeout: float | None) -> bool:
        """Wait until all queued events are durable. Return whether they are.

        Raises what prevents it if the run is strict. Unless it is, or there is a timeout, the wait ends when the server
        is known to be unreachable.
        """
        is_durable = await self.wait_durable(timeout)
        if self.raises and self._outbox.failure is not None:
            raise self._outbox.failure
        if self.raises and not is_durable:
            raise self._not_durable(timeout or 0.0)
        return is_durable

    async def wait_durable(self, timeout: float | None) -> bool:
        """Wait until all queued events are durable. Return whether they are."""
        with self._lock:
            if self._has_begun and self._outbox.failure is None and not self._outbox.is_empty:
                self._send()
        return await self.delivery.wait_durable(timeout, patient=self.raises or timeout is not None)

    def forget(self) -> None:
        """Leave the run to the process that this one was forked from, which sends and ends it."""
        # Threads that exist there alone may have held these.
        self._lock = Lock()
        self.changed.renew()
        self.cancellation.renew()
        self._outbox.fail(ProducerError(f"run {self.run_id} belongs to the process that began it, not to a fork of it"))
        self._has_ended, self._make_last = True, lambda _: ()
        self._sender.forget()

    def abort(self) -> None:
        """Drop what is not durable, and count it as lost. Nothing can be queued afterwards."""
        self.count_lost()
        self._outbox.fail(ProducerError(f"run {self.run_id}: the client is closed"))
        self._sender.abort()

    def count_lost(self) -> None:
        """Count what is not durable as lost."""
        if lost := self._outbox.count:
            self._connection.outage.drop(self.run_id, lost)

    async def close(self) -> None:
        """Wait until nothing is being sent."""
        await self._sender.close()
        self._connection.open_runs.discard(self)

    def _check_open(self) -> None:
        if not self._has_begun:
            raise RuntimeError("enter the run's block or call its begin: `async with client.runs.start(...) as run`")
        if self._outbox.failure is not None:
            raise self._outbox.failure
        if self._make_last is not None:
            raise ProducerError(f"run {self.run_id} has ended; publish before its end")

    def _drop(self, number: int) -> None:
        """Raise ProducerOverloaded, or count events as dropped because the queue is full."""
        if self.raises:
            self._outbox.check()
        self._dropped += number
        if self._connection.outage.is_on:
            self._connection.outage.drop(self.run_id, number)
        else:
            self._dropped_alone += number

    def _report_dropped(self) -> None:
        """Add a marker for dropped events to the log; log those that the end of an outage does not report."""
        if self._dropped:
            number, self._dropped = self._dropped, 0
            message = f"{number} events were dropped here: the queue was full"
            self._put((_payloads.error_reported(_payloads.error_text(message)),))
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
        if self._outbox.has_grown():  # tokens that only join a batch wake nobody
            self.changed.notify()

    def _report_change(self, path: str, description: str) -> None:
        """Log once that values were changed to be recorded, or raise InvalidField for it."""
        if self.raises:
            violation = FieldViolation(path=path, description=description)
            raise InvalidField(f"{path}: {description}", violations=(violation,))
        if not self._has_reported_change:
            self._has_reported_change = True
            _log.warning("run %s: not all is recorded as it was given: %s: %s", self.run_id, path, description)

    def _put_last(self, refused: Exception | None) -> None:
        """Queue the last events; if they cannot be queued, events that say why."""
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
                self.guard.refuse(error)
            self._put_last(error)

    def _send(self) -> None:
        """Start the sender if it does not run: at first, after a cancellation, or if its event loop is closed."""
        if not self._sender.is_over:
            return
        # Without an event loop, or if no thread can be started, the queue waits for the exit of the process.
        with suppress(RuntimeError, LavantError):
            if self._runtime is None or self._runtime.is_closed:
                self._runtime = self._connection.runtime()
            self._runtime.call(self._sender.start)

    def _on_failure(self, failure: LavantError) -> bool:
        """Log a failure that a retry cannot solve. Return whether the run's end can be sent in spite of it."""
        if not self.raises and not isinstance(failure, ProducerOverloaded):
            self.guard.refuse(failure)
        with self._lock:
            return self._make_last is not None and (self._give_up_refused() or self._outbox.failure is None)

    def _give_up_refused(self) -> bool:
        """Drop what the server refused for its content, and what followed it, and queue the run's end nevertheless."""
        refused = self._outbox.failure
        if self._gave_up or not isinstance(refused, InvalidField | QuotaExceeded) or _is_about_the_run(refused):
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
        if not event.event_id:
            event.event_id = f"{self._id_prefix}{next(self._numbers)}"
        try:
            if not event.HasField("event_time"):
                time = event.event_time
                time.seconds, time.nanos = divmod(self._options.clock(), NANOS)
            self._trace(event)
        except Exception:  # of the caller's clock, or of OpenTelemetry
            if self.raises:
                raise
            event.event_time.GetCurrentTime()

    def _cancel(self, reason: str) -> None:
        self.cancel_reason = reason
        self.cancellation.notify()


def _as_failure(error: Exception) -> LavantError:
    return error if isinstance(error, LavantError) else ProducerError(error_of(error).message)


def _is_about_the_run(refused: LavantError) -> bool:
    """Return whether the settings of a run were refused rather than an event: it cannot even be created."""
    return any(violation.path.startswith("batch.create") for violation in refused.violations)
