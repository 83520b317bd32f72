# Generated from _async/appends.py by client/unasync.py: change that file instead.
"""Batches that end runs, sent together where several are ready at the same time."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lavant.client._sync.calls import CallEnded
from lavant.client._sync.concurrency import Background, Lock, Runtime, Signal, next_turn
from lavant.client._wire.status import from_status, is_cut
from lavant.client.errors import LavantError, Unavailable
from lavant.contract.limits import MAX_REQUEST_BATCHES, MAX_REQUEST_BYTES
from lavant.v1.event_service_pb2 import (
    BatchAnswer,
    BatchReceipt,
    ProducerBatch,
    PublishEventsRequest,
    PublishEventsResponse,
)

if TYPE_CHECKING:
    from lavant.client._sync.calls import Conversation
    from lavant.client._sync.transport import Connection

_REQUEST_BYTES = MAX_REQUEST_BYTES // 2  # at which a request ends: a batch may have a quarter, and what is around it
ANSWER_LIMIT = 10.0  # seconds without an answer after which the connection is dead
STATUS_LIMIT = 1.0  # seconds for the status after the last answer
LONGEST_GROUP = 60.0  # seconds after which a batch is sent by itself, whatever has become of its group


class _Append:
    """One batch of a group, and its outcome: a receipt, an error, or neither if the batch is to be sent by itself."""

    __slots__ = ("batch", "changed", "error", "is_over", "receipt")

    def __init__(self, batch: ProducerBatch) -> None:
        self.batch = batch
        self.receipt: BatchReceipt | None = None
        self.error: LavantError | None = None
        self.is_over = False
        self.changed = Signal()

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Identifier of the batch in its answer."""
        return _key(self.batch)

    def end(self) -> None:
        """Wake its sender."""
        self.is_over = True
        self.changed.notify()


class Appends:
    """Appends batches of a client's runs, one per run at a time, in one attempt each.

    A batch that is ready alone is an AppendEvents call. Batches that are ready in the same turn of the event loop, as
    when many runs end at once, are one PublishEvents call, which takes a third of the server's time. Each has an answer
    of its own; what a call as a whole is refused for is found out by sending each of its batches by itself.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._lock = Lock()
        self._waiting: list[_Append] = []
        self._runtime: Runtime | None = None

    def append(self, batch: ProducerBatch) -> BatchReceipt:
        """Append a batch and return its receipt. Raises what refuses it, Unavailable if the connection was cut."""
        runtime = self._connection.runtime()
        own = _Append(batch)
        with self._lock:
            if self._runtime is not runtime:  # nobody sends what waited in an event loop or process that is gone
                self._runtime, self._waiting = runtime, []
            self._waiting.append(own)
            is_first = len(self._waiting) == 1
        if is_first:
            self._send_waiting()
        else:
            own.changed.wait_for(lambda: own.is_over, LONGEST_GROUP)
        if own.error is not None:
            raise own.error
        return own.receipt or self._connection.append_alone(batch)

    def _send_waiting(self) -> None:
        group: list[_Append] = []
        try:
            try:
                next_turn()
            finally:
                with self._lock:
                    group, self._waiting = self._waiting, []
            if len(group) > 1:
                self._publish(group)
        finally:
            for one in group:
                one.end()

    def _publish(self, group: Sequence[_Append]) -> None:
        unanswered = {one.key: one for one in group}
        try:
            call = self._connection.publish_events()
            replies = Background(lambda: self._receive(call, unanswered))
            try:
                for request in _requests(group):
                    if not call.write(request):
                        break
                call.end_writing()
                replies.join()
                call.finish(STATUS_LIMIT)
            finally:
                call.cancel()
                replies.stop()
        except LavantError as error:
            # One of the batches may be what the call is refused for: only a cut concerns all of them alike.
            if is_cut(error):
                for one in unanswered.values():
                    one.error = error
        except CallEnded:
            raise LavantError("the client is closed") from None

    def _receive(
        self,
        call: "Conversation[PublishEventsRequest, PublishEventsResponse]",
        unanswered: dict[tuple[str, str, int, int], _Append],
    ) -> None:
        """Read the answers. Raises what ends the call before all are there."""
        while unanswered:
            response = self._connection.read(call, ANSWER_LIMIT)
            if response is None:
                raise Unavailable("the server ended the call")
            for answer in response.answers:
                one = unanswered.pop(_key(answer), None)
                if one is None:
                    continue
                if answer.HasField("rejection"):
                    one.error = from_status(answer.rejection)
                else:
                    one.receipt = answer.receipt
                one.end()


def _key(named: ProducerBatch | BatchAnswer) -> tuple[str, str, int, int]:
    return named.run_id, named.producer_id, named.producer_epoch, named.first_producer_sequence


def _requests(group: Sequence[_Append]) -> Iterator[PublishEventsRequest]:
    """Yield the batches as requests of sizes that servers accept."""
    batches: list[ProducerBatch] = []
    size = 0
    for one in group:
        added = one.batch.ByteSize()
        if batches and (len(batches) >= MAX_REQUEST_BATCHES or size + added > _REQUEST_BYTES):
            yield PublishEventsRequest(batches=batches)
            batches, size = [], 0
        batches.append(one.batch)
        size += added
    yield PublishEventsRequest(batches=batches)
