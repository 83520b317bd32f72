# Generated from _async/sender.py by client/unasync.py: change that file instead.
"""Sender of one outbox."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lavant.client._publishing.outbox import Outbox
from lavant.client._sync.backlog import LAST_SECONDS
from lavant.client._sync.calls import CallEnded
from lavant.client._sync.concurrency import Background, Signal
from lavant.client._sync.reconnect import Reconnect
from lavant.client._sync.transport import UNANSWERED, Connection
from lavant.client._wire.status import from_status, is_cut
from lavant.client.errors import LavantError, ProducerError, ProducerGap, QuotaExceeded, Unavailable
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch, PublishEventsRequest, PublishEventsResponse

if TYPE_CHECKING:
    from lavant.client._sync.calls import Conversation

    PublishCall = Conversation[PublishEventsRequest, PublishEventsResponse]

HEARTBEAT, SHORTEST_HEARTBEAT = 15.0, 1.0
MISSED_HEARTBEATS = 3
GAPS_WITHOUT_PROGRESS = 5
CLOSING_GRACE = 1.0


class Sender:
    """Creates a run with its first batch, and makes one PublishEvents call after the other, in the background.

    What is left of a run that has ended is sent by AppendEvents if it fits into one batch: a run that ends soon after
    its beginning is one call.

    After a cut, everything without a receipt is sent again over the next call, without a limit. A refusal that a retry
    cannot solve becomes the outbox's failure; `on_failure` returns whether to continue with something else. `changed`
    is notified of the creation, of receipts and of the failure; notify it whenever the outbox's `demand` changes. After
    `heartbeat` seconds without events an empty batch is sent, as in each new call, so that the server knows the
    producer. No answer to three heartbeats of at least a second each is a cut.
    """

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        changed: Signal,
        *,
        heartbeat: float,
        on_cancel_request: Callable[[str], None],
        on_created: Callable[[], None],
        on_failure: Callable[[LavantError], bool],
        on_over: Callable[[], None],
    ) -> None:
        self.is_created = False
        self.trouble: LavantError | None = None
        self.failed_attempts = 0
        self._changed = changed
        self._connection = connection
        self._outbox = outbox
        self._heartbeat = heartbeat
        self._on_cancel_request = on_cancel_request
        self._on_created = on_created
        self._on_failure = on_failure
        self._on_over = on_over
        self._reconnect = Reconnect(connection.new_backoff(), connection.clock, sleep=self._sleep)
        self._call: PublishCall | None = None
        self._over: LavantError | None = None
        self._calls = self._gaps = self._cuts = 0
        self._closing = self._finishing = self._ends_when_empty = self._may_be_deferred = self._deferred = False
        self.has_ended, self._retries = True, False
        self._work: Background | None = None

    @property
    def is_deferred(self) -> bool:
        """Whether the client's backlog sends what is left."""
        return self._deferred

    @property
    def is_over(self) -> bool:
        """Whether nothing is sent unless it is started again."""
        return self.has_ended or (not self._deferred and (self._work is None or self._work.is_over))

    def start(self) -> None:
        """Start to send. Raises RuntimeError if no thread can be started."""
        self.has_ended = self._ends_when_empty = False
        try:
            self._work = Background(self._run, self._persistence)
        except RuntimeError:  # No thread can be started.
            self.has_ended = True
            raise

    def finish(self, *, may_be_deferred: bool) -> None:
        """End when all is durable. With `may_be_deferred`, join the client's backlog in an outage."""
        self._finishing = True
        self._may_be_deferred = may_be_deferred
        self._outbox.skip_delay()
        self._changed.notify()

    def join(self) -> None:
        """Wait until the background work of a sender that is over has ended."""
        if self._work is not None:
            self._work.stop(CLOSING_GRACE)

    def retry(self) -> None:
        """Make the next attempt now instead of at its time."""
        self._retries = True
        self._changed.notify()

    def forget(self) -> None:
        """Send nothing in a process that was forked from the one that sends."""
        self.has_ended, self._deferred, self._work = True, False, None

    def abort(self) -> None:
        """Drop what is not durable: the background work ends soon. May be called again."""
        self._closing = True
        if self._call is not None and not self._outbox.is_empty:
            self._call.cancel()
        self._changed.notify()

    def close(self) -> None:
        """Hang up, and wait until nothing is being sent."""
        self.abort()
        if self._work is not None:
            self._work.stop(CLOSING_GRACE if self._outbox.is_empty else 0.0, self.abort)

    def deliver(self) -> None:
        """Send what is left of a deferred run, in the work of the backlog."""
        try:
            self._send_all()
        finally:
            self._end()

    def _run(self) -> None:
        try:
            self._send_all()
        finally:
            if not self._deferred:
                self._end()

    def _send_all(self) -> None:
        while True:
            try:
                self._send_until_done()
            except LavantError as error:
                failure: LavantError = error
            except CallEnded:
                failure = ProducerError("the client is closed")
            except Exception as error:
                # Nobody may wait for a sender that is dead.
                failure = ProducerError(f"the sender ended by {error!r}")
            else:
                return
            if self._closing:
                return
            self._outbox.fail(failure)
            if not self._on_failure(failure):
                return

    def _send_until_done(self) -> None:
        while not self._is_done():
            try:
                self._attempt()
            except RuntimeError as error:  # No thread can be started at the moment.
                self._over = Unavailable(f"nothing can be sent: {error}")
            if self._over is not None and not self._is_done():
                self._pause(self._over)
                if self._may_defer() and self._connection.backlog.defer(self, self._outbox):
                    self._deferred = True
                    return

    def _attempt(self) -> None:
        """Make one call."""
        self._outbox.rewind()
        self._over = None
        while not self._calls and not self._is_done() and not self._outbox.has_next():
            self._wait_for_batch()
        self._reconnect.begin_call()
        if (batch := self._outbox.last_batch()) is not None:
            self._append(batch)
        elif not self._is_done():
            self._publish()

    def _append(self, batch: ProducerBatch) -> None:
        try:
            receipt = self._connection.appends.append(batch)
        except LavantError as refusal:
            self._over = self._rejected(refusal, batch.first_producer_sequence)
        else:
            self._acknowledge(receipt)

    def _publish(self) -> None:
        try:
            call = self._call = self._connection.publish_events()
        except LavantError as error:  # There is no token at the moment.
            self._over = error
            return
        replies = Background(lambda: self._receive(call))
        try:
            if self._calls and not self._outbox.has_next():
                call.write(PublishEventsRequest(batches=[self._outbox.heartbeat()]))
            self._calls += 1
            while not self._is_over() and self._send_next(call):
                pass
            if self._over is None:
                call.end_writing()
            if self._is_done():
                replies.stop(CLOSING_GRACE, call.cancel)
            else:
                replies.join()
        finally:
            call.cancel()
            replies.stop()

    def _is_done(self) -> bool:
        ends = self._finishing or self._ends_when_empty
        return self._closing or self._outbox.failure is not None or (ends and self._outbox.is_empty)

    def _is_over(self) -> bool:
        return self._over is not None or self._is_done()

    def _send_next(self, call: "PublishCall") -> bool:
        batch = self._outbox.next_batch()
        if batch is None:
            if self._wait_for_batch():
                return True
            batch = self._outbox.heartbeat()
        return call.write(PublishEventsRequest(batches=[batch]))

    def _wait_for_batch(self) -> bool:
        """Wait until there may be a batch to send. Return False if there was nothing to do for a heartbeat's time."""
        outbox = self._outbox
        demand, due = outbox.demand, outbox.due
        patience = self._heartbeat if due is None else max(0.0, due - self._connection.clock.monotonic())
        if self._changed.wait_for(lambda: self._is_over() or outbox.has_next() or outbox.demand != demand, patience):
            return True
        if due is not None:
            outbox.skip_delay()  # whatever the clock says: a timer may be early by a fraction of a millisecond
        return due is not None or outbox.is_waiting

    def _receive(self, call: "PublishCall") -> None:
        over: LavantError = Unavailable("the server ended the call")
        try:
            while (response := self._read(call, self._silence())) is not None:
                self._handle(response)
        except LavantError as refusal:
            over = refusal
        except CallEnded:
            over = ProducerError("the client is closed")
        finally:
            self._over = over
            self._changed.notify()

    def _silence(self) -> float:
        """Return for how many seconds an answer may not come: not so long for the first one, which is due at once."""
        silence = MISSED_HEARTBEATS * max(self._heartbeat, SHORTEST_HEARTBEAT)
        return silence if self.is_created else min(silence, UNANSWERED)

    def _read(self, call: "PublishCall", silence: float) -> PublishEventsResponse | None:
        try:
            return self._connection.read(call, silence)
        except QuotaExceeded as full:  # The call found no room, as when many reconnect at once.
            raise full if full.retry_after is not None else Unavailable(full.message) from None

    def _handle(self, response: PublishEventsResponse) -> None:
        for answer in response.answers:
            if answer.HasField("rejection"):
                raise self._rejected(from_status(answer.rejection), answer.first_producer_sequence)
            self._acknowledge(answer.receipt)
        for request in response.cancel_requests:
            self._on_cancel_request(request.reason)

    def _acknowledge(self, receipt: BatchReceipt) -> None:
        self._connected()
        if self._outbox.acknowledge(receipt):
            self._gaps = 0
            self._reconnect.progress()
        if not self.is_created:
            self.is_created = True
            self._on_created()
        self._changed.notify()

    def _rejected(self, refusal: LavantError, first_producer_sequence: int) -> LavantError:
        """Return what ends the call after a rejection: one that a retry may solve, or the final one."""
        if self._outbox.repair(refusal, first_producer_sequence):
            self._connected()
            self._reconnect.progress()
            return Unavailable(refusal.message)
        if not isinstance(refusal, ProducerGap):
            return refusal
        self._gaps += 1
        if self._gaps > GAPS_WITHOUT_PROGRESS or not self._outbox.holds(refusal.expected_producer_sequence):
            return refusal
        return Unavailable(refusal.message)

    def _connected(self) -> None:
        self._cuts = 0
        self.trouble = None
        self._reconnect.connected()
        self._connection.outage.end()

    def _pause(self, error: LavantError) -> None:
        """Wait before the next attempt. A second cut without progress begins an outage of the client.

        A quota that is used up is no outage: the server is there, and what is queued is kept until its time comes.
        """
        self.trouble = error
        self._cuts += 1
        self.failed_attempts += 1
        if isinstance(error, QuotaExceeded):
            self._connection.outage.end()
        elif self._cuts > 1 and is_cut(error):
            self._connection.outage.begin(error.message)
        self._changed.notify()
        self._reconnect.pause(error)

    def _may_defer(self) -> bool:
        return self._finishing and self._may_be_deferred and not self._deferred and self._connection.outage.is_on

    def _sleep(self, seconds: float) -> None:
        self._changed.wait_for(lambda: self._is_done() or self._may_defer() or self._retries, seconds)
        self._retries = False

    def _persistence(self) -> float:
        """Return for how many seconds to continue while the event loop closes."""
        if self._closing or self._outbox.is_empty or self._connection.outage.is_on:
            return 0.0
        self._ends_when_empty = True
        return LAST_SECONDS

    def _end(self) -> None:
        self.has_ended = True
        self._deferred = False
        self._on_over()
        self._changed.notify()
