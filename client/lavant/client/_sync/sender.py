# Made from _async/sender.py by client/unasync.py: change that one.
"""Sends what an outbox holds, until all of it is durable."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lavant.client._errors import LavantError, ProducerError, ProducerGap, QuotaExceeded, Unavailable
from lavant.client._outbox import Outbox
from lavant.client._status import from_status, is_cut
from lavant.client._sync.backlog import LAST_SECONDS
from lavant.client._sync.calls import HungUp
from lavant.client._sync.concurrency import Background, Signal
from lavant.client._sync.connection import Connection
from lavant.client._sync.reconnect import Reconnect
from lavant.v1.event_service_pb2 import PublishEventsRequest, PublishEventsResponse
from lavant.v1.run_service_pb2 import CreateRunRequest

if TYPE_CHECKING:
    from lavant.client._sync.calls import Conversation

    PublishCall = Conversation[PublishEventsRequest, PublishEventsResponse]

HEARTBEAT, SHORTEST_HEARTBEAT = 15.0, 1.0
MISSED_HEARTBEATS = 3
GAPS_WITHOUT_PROGRESS = 5
CLOSING_GRACE = 1.0


class Sender:
    """Creates a run, then makes one PublishEvents call after the other, beside the producer.

    Whatever cuts a call, everything without a receipt is sent again over the next one, without end. A refusal
    that trying again cannot mend becomes the outbox's failure; `on_failure` tells whether there is something to
    send nevertheless. `changed` is notified of the creation, of receipts and of the failure; notify it of new
    events. `heartbeat` seconds without events send a sign of life; so does every new call, for the server to know
    whose it is. No answer for three of these, of a second each at least, is a cut.
    """

    def __init__(
        self,
        connection: Connection,
        create: CreateRunRequest,
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
        self._create_request = create
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
        self._closing = self._finishing = self._hurried = self._parks = self._parked = False
        self.has_ended, self._retries = True, False
        self._work: Background | None = None

    @property
    def is_parked(self) -> bool:
        """Whether the client's backlog sends what is left."""
        return self._parked

    @property
    def is_over(self) -> bool:
        """Whether nothing is sent any more, unless it is started again."""
        return self.has_ended or (not self._parked and (self._work is None or self._work.is_over))

    def start(self) -> None:
        """Begin to send, where nothing is sent."""
        self.has_ended = self._hurried = False
        try:
            self._work = Background(self._run, self._persistence)
        except RuntimeError:  # No thread can be started.
            self.has_ended = True
            raise

    def finish(self, *, parks: bool) -> None:
        """End once all is durable. If it `parks`, it joins the client's backlog while the server is out of reach."""
        self._finishing = True
        self._parks = parks
        self._changed.notify()

    def join(self) -> None:
        """Wait until the task or thread of a sender that is over has ended."""
        if self._work is not None:
            self._work.stop(CLOSING_GRACE)

    def retry(self) -> None:
        """Make the next attempt now, instead of waiting for its time."""
        self._retries = True
        self._changed.notify()

    def disown(self) -> None:
        """Send nothing in a process that was forked from the one that sends."""
        self.has_ended, self._parked, self._work = True, False, None

    def hang_up(self) -> None:
        """Give up what is not durable by now: the task or thread that sends it ends soon. May be called again."""
        self._closing = True
        if self._call is not None and not self._outbox.is_empty:
            self._call.cancel()
        self._changed.notify()

    def close(self) -> None:
        """Hang up, and wait until nothing is sent any more."""
        self.hang_up()
        if self._work is not None:
            self._work.stop(CLOSING_GRACE if self._outbox.is_empty else 0.0, self.hang_up)

    def deliver(self) -> None:
        """Send what is left of a parked run, in the backlog's task or thread."""
        try:
            self._send_all()
        finally:
            self._end()

    def _run(self) -> None:
        try:
            self._send_all()
        finally:
            if not self._parked:
                self._end()

    def _send_all(self) -> None:
        while True:
            try:
                self._send_until_done()
            except LavantError as error:
                failure: LavantError = error
            except HungUp:
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
                (self._converse() if self.is_created else self._create())
            except RuntimeError as error:  # No thread can be started at the moment.
                self._over = Unavailable(f"nothing can be sent: {error}")
            if self._over is not None and not self._is_done():
                self._pause(self._over)
                if self._may_park() and self._connection.backlog.park(self, self._outbox):
                    self._parked = True
                    return

    def _create(self) -> None:
        self._over = None
        try:
            self._connection.create_run(self._create_request)
        except QuotaExceeded as full:
            self._over = _retried(full)
        except LavantError as error:
            self._over = error
        else:
            self.is_created = True
            self._on_created()
            self._progress()
            self._changed.notify()

    def _converse(self) -> None:
        self._outbox.rewind()
        self._over = None
        call = self._call = self._connection.publish_events()
        replies = Background(lambda: self._receive(call))
        try:
            if self._calls and not self._outbox.has_next():
                call.write(PublishEventsRequest(batch=self._outbox.sign_of_life()))
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
        ends = self._finishing or self._hurried
        return self._closing or self._outbox.failure is not None or (ends and self._outbox.is_empty)

    def _is_over(self) -> bool:
        return self._over is not None or self._is_done()

    def _send_next(self, call: "PublishCall") -> bool:
        batch = self._outbox.next_batch()
        if batch is None:
            if self._changed.wait_for(lambda: self._is_over() or self._outbox.has_next(), self._heartbeat):
                return True
            if self._outbox.is_waiting:
                return True
            batch = self._outbox.sign_of_life()
        return call.write(PublishEventsRequest(batch=batch))

    def _receive(self, call: "PublishCall") -> None:
        over: LavantError = Unavailable("the server ended the call")
        silence = MISSED_HEARTBEATS * max(self._heartbeat, SHORTEST_HEARTBEAT)
        try:
            while (response := self._read(call, silence)) is not None:
                self._handle(response)
        except LavantError as refusal:
            over = refusal
        except HungUp:
            over = ProducerError("the client is closed")
        finally:
            self._over = over
            self._changed.notify()

    def _read(self, call: "PublishCall", silence: float) -> PublishEventsResponse | None:
        try:
            return self._connection.read(call, silence)
        except QuotaExceeded as full:  # No room for the call, as among all that reconnect at once; not for an event.
            raise Unavailable(full.message, retry_after=full.retry_after) from None

    def _handle(self, response: PublishEventsResponse) -> None:
        match response.WhichOneof("outcome"):
            case "receipt":
                self._progress()
                if self._outbox.acknowledge(response.receipt):
                    self._gaps = 0
                self._changed.notify()
            case "cancel_request":
                self._on_cancel_request(response.cancel_request.reason)
            case "rejection":
                raise self._judge(from_status(response.rejection))

    def _judge(self, refusal: LavantError) -> LavantError:
        """Tell a gap that sending again fills, as after a batch that the store was not there for, from others."""
        if self._outbox.repair(refusal):
            self._progress()
            return Unavailable(refusal.message)
        if isinstance(refusal, QuotaExceeded):
            return _retried(refusal)
        if not isinstance(refusal, ProducerGap):
            return refusal
        self._gaps += 1
        expected = int(refusal.metadata.get("expected_producer_sequence", "0"))
        if self._gaps > GAPS_WITHOUT_PROGRESS or not self._outbox.holds(expected):
            return refusal
        return Unavailable(refusal.message)

    def _progress(self) -> None:
        self._cuts = 0
        self.trouble = None
        self._reconnect.progress()
        self._connection.outage.end()

    def _pause(self, error: LavantError) -> None:
        """Wait before the next attempt. Of a cut without progress since the last one, all of the client learn."""
        self.trouble = error
        self._cuts += 1
        self.failed_attempts += 1
        if self._cuts > 1 and is_cut(error):
            self._connection.outage.begin(error.message)
        self._changed.notify()
        self._reconnect.pause(error)

    def _may_park(self) -> bool:
        return self._finishing and self._parks and not self._parked and self._connection.outage.is_on

    def _sleep(self, seconds: float) -> None:
        self._changed.wait_for(lambda: self._is_done() or self._may_park() or self._retries, seconds)
        self._retries = False

    def _persistence(self) -> float:
        """Return for how many seconds to go on though the event loop is being closed."""
        if self._closing or self._outbox.is_empty or self._connection.outage.is_on:
            return 0.0
        self._hurried = True
        return LAST_SECONDS

    def _end(self) -> None:
        self.has_ended = True
        self._parked = False
        self._on_over()
        self._changed.notify()


def _retried(full: QuotaExceeded) -> LavantError:
    """Return a lack of room that the server expects to pass as what trying again mends; a bound as it is."""
    return full if full.retry_after is None else Unavailable(full.message, retry_after=full.retry_after)
