"""A producer's events between their making and their receipt. Pure: no I/O, no clock."""

from collections import deque
from collections.abc import Iterator
from threading import Lock

from lavant.client._errors import InvalidField, LavantError, ProducerOverloaded
from lavant.client._models import FieldViolation, Receipt
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch

MAX_BATCH_EVENTS = 1_000
# The contract's 1 MiB, less what a batch's own fields and the framing of its events may take.
MAX_BATCH_BYTES = (1 << 20) - (1 << 16)
MAX_IN_FLIGHT = 4
FULL_EVENTS = 250
FULL_BYTES = 128 * 1024
_FRAMING = 8


class Outbox:
    """Numbers events, makes batches of them, and holds each until its receipt.

    A batch goes out at once when none is under way; while one is, further ones go only when full.
    So an idle producer waits for nothing, and a busy one sends large batches. What was in flight
    when a call was lost is sent again identically: the server stores it once. Thread-safe.
    """

    def __init__(self, run_id: str, producer_id: str, producer_epoch: int, max_bytes: int) -> None:
        self._address = ProducerBatch(run_id=run_id, producer_id=producer_id, producer_epoch=producer_epoch)
        self._max_bytes = max_bytes
        self._queued: deque[tuple[Event, int]] = deque()
        self._queued_bytes = 0
        self._unacked: deque[tuple[ProducerBatch, int]] = deque()
        self._unacked_bytes = 0
        self._sent = 0
        self._next_sequence = 1
        self._lock = Lock()
        self.last_receipt: Receipt | None = None
        self.failure: LavantError | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything is durable."""
        with self._lock:
            return not self._queued and not self._unacked

    @property
    def is_waiting(self) -> bool:
        """Whether a batch is without its receipt."""
        return bool(self._unacked)

    def has_room(self) -> bool:
        """Whether an event fits now: below the bound, which the last one in may overstep."""
        return self.failure is not None or self._queued_bytes + self._unacked_bytes < self._max_bytes

    def check(self) -> None:
        """Raise the failure, if there was one, and ProducerOverloaded if there is no room."""
        if self.failure is not None:
            raise self.failure
        if not self.has_room():
            waiting = self._queued_bytes + self._unacked_bytes
            raise ProducerOverloaded(
                f"the queue is full: {waiting} bytes wait for the server. Is it in reach? "
                "ProducerOptions has queue_bytes and block_timeout"
            )

    def put(self, *events: Event) -> None:
        """Take events, all or none. Raises InvalidField for one too large for any batch, and after a failure, that."""
        if self.failure is not None:
            raise self.failure
        sized = [(event, _size(event)) for event in events]
        with self._lock:
            self._queued.extend(sized)
            self._queued_bytes += sum(size for _, size in sized)

    def has_next(self) -> bool:
        """Whether there is something to send now."""
        if self._sent < len(self._unacked):
            return True
        if not self._queued or len(self._unacked) >= MAX_IN_FLIGHT:
            return False
        return not self._unacked or self._is_full()

    def next_batch(self) -> ProducerBatch | None:
        """Return what to send now, if anything: first what was cut off, then what is new."""
        with self._lock:
            if not self.has_next():
                return None
            if self._sent == len(self._unacked):
                self._cut_batch()
            self._sent += 1
            return self._unacked[self._sent - 1][0]

    def sign_of_life(self) -> ProducerBatch:
        """Return an empty batch. Send it only when nothing is in flight."""
        return self._new_batch()

    def acknowledge(self, receipt: BatchReceipt) -> bool:
        """Drop what is durable; tell whether anything was."""
        dropped = False
        with self._lock:
            while self._unacked and _last(self._unacked[0][0]) <= receipt.last_producer_sequence:
                _, size = self._unacked.popleft()
                self._unacked_bytes -= size
                self._sent = max(0, self._sent - 1)
                dropped = True
        if dropped:
            self.last_receipt = Receipt.from_proto(receipt)
        return dropped

    def rewind(self) -> None:
        """Send everything without a receipt again, from the first: the call that carried it is gone."""
        self._sent = 0

    def drop(self) -> None:
        """Forget what is not durable and the failure; what comes next takes the first free number."""
        with self._lock:
            if self._unacked:
                self._next_sequence = self._unacked[0][0].first_producer_sequence
            self._queued.clear()
            self._unacked.clear()
            self._queued_bytes = self._unacked_bytes = self._sent = 0
            self.failure = None

    def holds(self, producer_sequence: int) -> bool:
        """Tell whether a batch that begins with this number can still be sent."""
        with self._lock:
            return any(batch.first_producer_sequence == producer_sequence for batch, _ in self._unacked)

    def fail(self, error: LavantError) -> None:
        """Refuse everything from now on. What had no receipt is given up."""
        self.failure = self.failure or error

    def _is_full(self) -> bool:
        return len(self._queued) >= FULL_EVENTS or self._queued_bytes >= FULL_BYTES

    def _cut_batch(self) -> None:
        events = list(self._take())
        batch = self._new_batch()
        batch.events.extend(event for event, _ in events)
        size = sum(size for _, size in events)
        self._next_sequence += len(events)
        self._queued_bytes -= size
        self._unacked.append((batch, size))
        self._unacked_bytes += size

    def _new_batch(self) -> ProducerBatch:
        batch = ProducerBatch()
        batch.CopyFrom(self._address)
        batch.first_producer_sequence = self._next_sequence
        return batch

    def _take(self) -> Iterator[tuple[Event, int]]:
        count = size = 0
        while self._queued and count < MAX_BATCH_EVENTS and size + self._queued[0][1] <= MAX_BATCH_BYTES:
            count += 1
            size += self._queued[0][1]
            yield self._queued.popleft()


def _size(event: Event) -> int:
    size = event.ByteSize() + _FRAMING
    if size > MAX_BATCH_BYTES:
        violation = FieldViolation(path="event", description=f"{size} bytes; at most {MAX_BATCH_BYTES}")
        message = f"event of {size} bytes is too large: at most {MAX_BATCH_BYTES}; publish a URI to it, or parts of it"
        raise InvalidField(message, violations=(violation,))
    return size


def _last(batch: ProducerBatch) -> int:
    return batch.first_producer_sequence + len(batch.events) - 1
