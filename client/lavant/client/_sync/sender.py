# Made from _async/sender.py by client/unasync.py: change that one.
"""Sends what an outbox holds, until all of it is durable."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lavant.client._errors import LavantError, ProducerError, ProducerGap, QuotaExceeded, Unavailable
from lavant.client._outbox import Outbox
from lavant.client._status import from_status
from lavant.client._sync.calls import HungUp
from lavant.client._sync.concurrency import Background, Signal
from lavant.client._sync.connection import Connection
from lavant.client._sync.reconnect import Reconnect
from lavant.v1.event_service_pb2 import PublishEventsRequest, PublishEventsResponse

if TYPE_CHECKING:
    from lavant.client._sync.calls import Conversation

    PublishCall = Conversation[PublishEventsRequest, PublishEventsResponse]

HEARTBEAT, SHORTEST_HEARTBEAT = 15.0, 1.0
MISSED_HEARTBEATS = 3
GAPS_WITHOUT_PROGRESS = 5
CLOSING_GRACE = 1.0


class Sender:
    """One PublishEvents call after the other, beside the producer.

    Whatever cuts a call, everything without a receipt is sent again over the next one. A refusal that
    trying again cannot mend becomes the outbox's failure. `changed` is notified of receipts and of
    the failure; notify it of new events. `heartbeat` seconds without events send a sign of life; so does
    every new call, for the server to know whose it is. No answer for three of these, of a second each at
    least, is a cut.
    """

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        changed: Signal,
        *,
        heartbeat: float,
        on_cancel_request: Callable[[str], None],
    ) -> None:
        self._changed = changed
        self._connection = connection
        self._outbox = outbox
        self._heartbeat = heartbeat
        self._on_cancel_request = on_cancel_request
        self._reconnect = Reconnect(connection.new_backoff(), connection.clock, sleep=self._sleep)
        self._call: PublishCall | None = None
        self._over: LavantError | None = None
        self._calls = self._gaps = 0
        self._closing = False
        self._work = Background(self._run)

    def close(self) -> None:
        """End the call in good order. What is not durable by now is given up."""
        self._closing = True
        self._changed.notify()
        self._work.stop(CLOSING_GRACE if self._outbox.is_empty else 0.0, self._hang_up)

    def _run(self) -> None:
        try:
            while not self._closing and self._outbox.failure is None:
                self._converse()
                if self._over is not None and not self._closing:
                    self._reconnect.pause(self._over)
        except LavantError as error:
            self._outbox.fail(error)
        except HungUp:
            self._outbox.fail(ProducerError("the client is closed"))
        except BaseException as error:
            # Nobody may wait for a sender that is dead.
            if not self._closing:
                self._outbox.fail(ProducerError(f"the sender ended by {error!r}"))
            raise
        finally:
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
            replies.join()
        finally:
            call.cancel()
            replies.stop()

    def _is_over(self) -> bool:
        return self._over is not None or self._closing or self._outbox.failure is not None

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
                self._reconnect.progress()
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
            return Unavailable(refusal.message)
        if not isinstance(refusal, ProducerGap):
            return refusal
        self._gaps += 1
        expected = int(refusal.metadata.get("expected_producer_sequence", "0"))
        if self._gaps > GAPS_WITHOUT_PROGRESS or not self._outbox.holds(expected):
            return refusal
        return Unavailable(refusal.message)

    def _sleep(self, seconds: float) -> None:
        self._changed.wait_for(lambda: self._closing, seconds)

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
