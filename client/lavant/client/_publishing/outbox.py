"""Queue of a producer's events from their creation to their receipt, without I/O."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from time import monotonic as _monotonic
from typing import Literal

from lavant.client.errors import InvalidField, LavantError, ProducerOverloaded, QuotaExceeded
from lavant.client.models import FieldViolation, Receipt
from lavant.contract import events as rules
from lavant.contract.events import LogContent
from lavant.contract.limits import MAX_BATCH_BYTES as _MAX_BATCH_BYTES
from lavant.contract.limits import MAX_BATCH_EVENTS
from lavant.contract.text import to_text
from lavant.contract.values import Violation
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Error, RunSettings, RunState

# Less what a batch's own fields and the framing of its events may take.
MAX_BATCH_BYTES = _MAX_BATCH_BYTES - (1 << 16)
# A server that refuses that much has other rules altogether.
MAX_REPAIRS = 1_000
MAX_MARKER = 1_000
Kind = Literal["steps", "messages", "tool_calls"]
MAX_IN_FLIGHT = 4
FULL_EVENTS = 250
FULL_BYTES = 128 * 1024
LINGER = 0.002  # seconds between the cuts of two batches that are not full
HEAD_START = 0.001  # seconds that the first batch waits for the run's end: a run that short is one call
_FRAMING = 8
_EVENT = re.compile(r"batch\.events\[(\d+)\]")
# Where what these continue or end was refused, its own marker says enough.
_CONTINUING = {
    *("text_delta", "reasoning_delta", "tool_arguments_delta", "tool_output_delta"),
    *("message_finished", "tool_call_finished", "step_finished", "input_resolved"),
}


class Outbox:
    """Numbers events, forms batches of them, and keeps each batch until its receipt.

    A batch is cut at once if none is in flight and none was cut within the last LINGER seconds, else when these
    conditions hold or it is full: an idle producer does not wait, tokens that follow each other closely share a batch,
    and a busy producer makes large ones. The first batch waits for HEAD_START. `skip_delay` cuts as soon as none is in
    flight. After a cut connection, batches are sent again unchanged, so the server stores them once. Until the first
    receipt, batches have the run's `settings`, by which the server creates it. Thread-safe. `monotonic` returns seconds
    that never decrease.

    Events are checked by the server's own rules, so it accepts what the outbox accepts. With `repairs_events`, an event
    that breaks a rule is changed instead of refused: an event of a step that is not open belongs to the run; one that
    cannot be stored is replaced by an error_reported with the reason, or left out if it only continues such an event.
    """

    def __init__(
        self,
        run_id: str,
        producer_id: str,
        producer_epoch: int,
        max_bytes: int,
        *,
        settings: RunSettings | None = None,
        repairs_events: bool = False,
        monotonic: Callable[[], float] = _monotonic,
    ) -> None:
        self._address = ProducerBatch(
            run_id=run_id, producer_id=producer_id, producer_epoch=producer_epoch, create=settings
        )
        self._max_bytes = max_bytes
        self._queued: deque[tuple[Event, int]] = deque()
        self._queued_bytes = 0
        self._unacked: deque[tuple[ProducerBatch, int]] = deque()
        self._unacked_bytes = 0
        self._sent = 0
        self._next_sequence = 1
        self._monotonic = monotonic
        self._due = 0.0
        self._grown = False
        self._lock = Lock()
        self._repairs_events = repairs_events
        self._content: LogContent | None = None
        self._repair_count = 0
        self._last_receipt: BatchReceipt | None = None
        self.failure: LavantError | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all events are durable."""
        with self._lock:
            return not self._queued and not self._unacked

    @property
    def is_waiting(self) -> bool:
        """Whether a batch is waiting for its receipt."""
        return bool(self._unacked)

    @property
    def run_id(self) -> str:
        """Whose events these are."""
        return self._address.run_id

    @property
    def last_receipt(self) -> Receipt | None:
        """Receipt of the last stored batch; None before the first."""
        return None if self._last_receipt is None else Receipt.from_proto(self._last_receipt)

    @property
    def size(self) -> int:
        """Number of bytes without a receipt."""
        return self._queued_bytes + self._unacked_bytes

    @property
    def count(self) -> int:
        """Number of events without a receipt."""
        with self._lock:
            return len(self._queued) + sum(len(batch.events) for batch, _ in self._unacked)

    def has_capacity(self) -> bool:
        """Return whether an event fits now. The last event before the bound may exceed it."""
        return self.failure is not None or self._queued_bytes + self._unacked_bytes < self._max_bytes

    def check(self) -> None:
        """Raise the failure if there was one, and ProducerOverloaded if the queue is full."""
        if self.failure is not None:
            raise self.failure
        if not self.has_capacity():
            waiting = self._queued_bytes + self._unacked_bytes
            raise ProducerOverloaded(
                f"the queue is full: {waiting} bytes wait for the server. Is it in reach? "
                "ProducerOptions has queue_bytes and block_timeout"
            )

    def put(self, *events: Event) -> InvalidField | None:
        """Take events, all or none. Raises InvalidField for one that breaks a rule, and after a failure, that.

        With `repairs_events` it takes what it can, and returns what was wrong with the first one that it changed.
        """
        if self.failure is not None:
            raise self.failure
        with self._lock:
            if not self._repairs_events:
                self._accept(events)
                return None
            first: InvalidField | None = None
            for event in events:
                refusal = self._accept_repaired(event)
                first = first or refusal
        return first

    def is_open(self, kind: Kind, key: str) -> bool:
        """Return whether a step, message or tool call has started and not finished."""
        return self._content is not None and key in getattr(self._content, kind)

    @property
    def is_sealed(self) -> bool:
        """Whether the run's last event is queued."""
        return self._content is not None and self._content.state >= RunState.RUN_STATE_SUCCEEDED

    def has_next(self) -> bool:
        """Return whether there is something to send now."""
        if self._sent < len(self._unacked):
            return True
        if not self._queued or len(self._unacked) >= MAX_IN_FLIGHT:
            return False
        return self._is_full() or (not self._unacked and self._monotonic() >= self._due)

    @property
    def due(self) -> float | None:
        """Time at which the queued events are to be sent; None without any, or while a batch is in flight."""
        return self._due if self._queued and not self._unacked else None

    @property
    def demand(self) -> tuple[float | None, bool]:
        """Work for the sender: the time `due`, and whether a batch is full."""
        return self.due, self._is_full()

    def has_grown(self) -> bool:
        """Return whether `demand` has changed by what was queued since the last call."""
        grown, self._grown = self._grown, False
        return grown

    def skip_delay(self) -> None:
        """Let the queued events wait for no further ones."""
        self._due = 0.0

    def next_batch(self) -> ProducerBatch | None:
        """Return the batch to send now, if any: first those of a call that was cut, then new ones."""
        with self._lock:
            if not self.has_next():
                return None
            if self._sent == len(self._unacked):
                self._cut_batch()
            self._sent += 1
            return self._unacked[self._sent - 1][0]

    def last_batch(self) -> ProducerBatch | None:
        """Return the batch with the run's last event if nothing else is left to send, else None."""
        with self._lock:
            if self.is_sealed and self._queued and not self._unacked:
                self._cut_batch()
            if not self.is_sealed or self._queued or len(self._unacked) != 1:
                return None
            self._sent = 1
            return self._unacked[0][0]

    def heartbeat(self) -> ProducerBatch:
        """Return an empty batch. Send it only when nothing is in flight."""
        return self._new_batch()

    def acknowledge(self, receipt: BatchReceipt) -> bool:
        """Drop what is durable. Return whether anything was."""
        dropped = False
        with self._lock:
            self._address.ClearField("create")
            while self._unacked and _last(self._unacked[0][0]) <= receipt.last_producer_sequence:
                _, size = self._unacked.popleft()
                self._unacked_bytes -= size
                self._sent = max(0, self._sent - 1)
                dropped = True
        if dropped:
            self._last_receipt = receipt
        return dropped

    def rewind(self) -> None:
        """Send all batches without a receipt again, because the call that carried them ended."""
        self._sent = 0

    def drop(self) -> None:
        """Drop what is not durable, and the failure. The next event gets the first free number."""
        with self._lock:
            if self._unacked:
                self._next_sequence = self._unacked[0][0].first_producer_sequence
            self._queued.clear()
            self._unacked.clear()
            self._queued_bytes = self._unacked_bytes = self._sent = 0
            self._content = None  # what was dropped may have been open
            self.failure = None

    def repair(self, refusal: LavantError, first_producer_sequence: int) -> bool:
        """Replace the event that the server refused, so that its batch can be sent again. Return whether that was done.

        Nothing of a refused batch is stored, so it may change. This is for servers with stricter rules than those known
        here.
        """
        index = _refused_index(refusal)
        with self._lock:
            if not self._repairs_events or index is None or self._repair_count >= MAX_REPAIRS:
                return False
            position = self._find(first_producer_sequence)
            if position is None or index >= len(self._unacked[position][0].events):
                return False
            batch, size = self._unacked[position]
            event = batch.events[index]
            bare = _bare(event)
            if bare == event:  # as of a run that another producer has started
                return False
            self._repair_count += 1
            before = event.ByteSize()
            event.CopyFrom(bare or _marker(event, refusal))
            grown = batch.events[index].ByteSize() - before
            self._unacked[position] = batch, size + grown
            self._unacked_bytes += grown
            return True

    def drop_unsent(self) -> int:
        """Drop unsent events except the run's first and last one. Return the number of those dropped.

        Before the first receipt, events in batches count as unsent. If one was stored nevertheless and only its receipt
        was lost, the server refuses the shorter batch, and the run is complete.
        """
        with self._lock:
            if self._address.HasField("create"):
                self._recall()
            events = [event for event, _ in self._queued]
            first = [event for event in events[:1] if event.HasField("run_started")]
            last = [event for event in events[-1:] if event.HasField("run_finished")]
            dropped = events[len(first) : len(events) - len(last)]
            if dropped:
                lost = ProducerOverloaded(f"{len(dropped)} events were dropped: too much waited for the server")
                first.append(_marker(dropped[0], lost))
                self._queued = deque((event, event.ByteSize() + _FRAMING) for event in [*first, *last])
                self._queued_bytes = sum(size for _, size in self._queued)
        return len(dropped)

    def _recall(self) -> None:
        """Queue the events again that are in batches without a receipt."""
        events = [event for batch, _ in self._unacked for event in batch.events]
        self._queued.extendleft((event, event.ByteSize() + _FRAMING) for event in reversed(events))
        self._next_sequence -= len(events)
        self._queued_bytes += self._unacked_bytes
        self._unacked.clear()
        self._unacked_bytes = self._sent = 0

    def holds(self, producer_sequence: int) -> bool:
        """Return whether a batch that begins with this number can still be sent."""
        with self._lock:
            return self._find(producer_sequence) is not None

    def fail(self, error: LavantError) -> None:
        """Refuse all events from now on, and drop those without a receipt."""
        self.failure = self.failure or error

    def _find(self, producer_sequence: int) -> int | None:
        """Return which of the batches without a receipt begins with this number, if one does."""
        numbers = (batch.first_producer_sequence for batch, _ in self._unacked)
        return next((position for position, number in enumerate(numbers) if number == producer_sequence), None)

    def _accept(self, events: Sequence[Event]) -> None:
        sized = [(event, _size(event)) for event in events]
        if self._content is None:
            # A producer that does not start the run continues one that runs.
            starts = bool(events) and events[0].HasField("run_started")
            self._content = LogContent(RunState.RUN_STATE_QUEUED if starts else RunState.RUN_STATE_RUNNING)
            self._due = self._monotonic() + HEAD_START
        self._content.mark()
        try:
            rules.apply(self._content, events)
        except Violation as violation:
            self._content.undo()
            raise _refusal(violation.path, violation.description) from None
        if not self._queued:
            self._grown = True
        was_full = self._is_full()
        self._queued.extend(sized)
        for _, size in sized:
            self._queued_bytes += size
        if not was_full and self._is_full():
            self._grown = True

    def _accept_repaired(self, event: Event) -> InvalidField | None:
        try:
            self._accept((event,))
        except InvalidField as refusal:
            if self._move_from_closed_steps(event):
                return self._accept_repaired(event)
            if event.WhichOneof("payload") not in _CONTINUING:
                self._accept((_marker(event, refusal),))
            return refusal
        return None

    def _move_from_closed_steps(self, event: Event) -> bool:
        """Move an event of a step that is not open to the run. Return whether that changed the event."""
        before = event.step_id, event.step_started.parent_step_id
        if not self.is_open("steps", event.step_id):
            event.step_id = ""
        if event.HasField("step_started") and not self.is_open("steps", event.step_started.parent_step_id):
            event.step_started.parent_step_id = ""
        return before != (event.step_id, event.step_started.parent_step_id)

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
        # What is left did not fit, so it has waited already.
        self._due = 0.0 if self._queued else self._monotonic() + LINGER

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
        description = f"{size} bytes are too many for one event: at most {MAX_BATCH_BYTES}; publish a URI, or parts"
        raise _refusal("event", description)
    return size


def _refused_index(refusal: LavantError) -> int | None:
    """Return which event of a batch was refused for what it holds, if one was."""
    if not isinstance(refusal, InvalidField | QuotaExceeded) or not refusal.violations:
        return None
    found = _EVENT.match(refusal.violations[0].path)
    return int(found[1]) if found else None


def _refusal(path: str, description: str) -> InvalidField:
    return InvalidField(f"{path}: {description}", violations=(FieldViolation(path=path, description=description),))


def _marker(event: Event, refusal: LavantError) -> Event:
    """Return what stands in a log for an event that could not be stored."""
    kind = event.WhichOneof("payload") or "event"
    message = to_text(f"{kind} could not be recorded: {refusal.message}")[:MAX_MARKER]
    error = Error(message=message, type=f"lavant.{type(refusal).__name__}")
    marker = Event(event_id=event.event_id, event_time=event.event_time)
    marker.error_reported.error.CopyFrom(error)
    return marker


def _bare(event: Event) -> Event | None:
    """Return what a run's first or last event is at least, without which it would not begin or end; None for others."""
    bare = Event(event_id=event.event_id, event_time=event.event_time)
    if event.HasField("run_started"):
        bare.run_started.SetInParent()
    elif event.HasField("run_finished"):
        finished = event.run_finished
        bare.run_finished.state = finished.state
        if finished.HasField("error"):
            bare.run_finished.error.message = "its description could not be recorded"
    else:
        return None
    return bare


def _last(batch: ProducerBatch) -> int:
    return batch.first_producer_sequence + len(batch.events) - 1
