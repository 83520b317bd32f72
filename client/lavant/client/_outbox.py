"""A producer's events between their making and their receipt. Pure: no I/O, no clock."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Literal

from lavant.client._errors import InvalidField, LavantError, ProducerOverloaded, QuotaExceeded
from lavant.client._models import FieldViolation, Receipt
from lavant.contract import events as rules
from lavant.contract.content import LogContent
from lavant.contract.limits import MAX_BATCH_BYTES as _MAX_BATCH_BYTES
from lavant.contract.limits import MAX_BATCH_EVENTS
from lavant.contract.text import to_text
from lavant.contract.violation import Violation
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Error, RunState

# Less what a batch's own fields and the framing of its events may take.
MAX_BATCH_BYTES = _MAX_BATCH_BYTES - (1 << 16)
# A server that refuses that much has other rules altogether.
MAX_REPAIRS = 1_000
MAX_MARKER = 1_000
Kind = Literal["steps", "messages", "tool_calls"]
MAX_IN_FLIGHT = 4
FULL_EVENTS = 250
FULL_BYTES = 128 * 1024
_FRAMING = 8
_EVENT = re.compile(r"batch\.events\[(\d+)\]")
# Where what these continue or end was refused, its own marker says enough.
_CONTINUING = {
    *("text_delta", "reasoning_delta", "tool_arguments_delta", "tool_output_delta"),
    *("message_finished", "tool_call_finished", "step_finished", "input_resolved"),
}


class Outbox:
    """Numbers events, makes batches of them, and holds each until its receipt.

    A batch goes out at once when none is under way; while one is, further ones go only when full.
    So an idle producer waits for nothing, and a busy one sends large batches. What was in flight
    when a call was lost is sent again identically: the server stores it once. Thread-safe.

    Events are checked against the rules that the server has, so that it takes what this takes. With `mends`, what
    breaks a rule costs no more than itself: an event of a step that is not open belongs to the run, and one that
    cannot be stored is replaced by an ErrorReported that says why, or left out where it only continued such a one.
    Without, it is refused.
    """

    def __init__(
        self, run_id: str, producer_id: str, producer_epoch: int, max_bytes: int, *, mends: bool = False
    ) -> None:
        self._address = ProducerBatch(run_id=run_id, producer_id=producer_id, producer_epoch=producer_epoch)
        self._max_bytes = max_bytes
        self._queued: deque[tuple[Event, int]] = deque()
        self._queued_bytes = 0
        self._unacked: deque[tuple[ProducerBatch, int]] = deque()
        self._unacked_bytes = 0
        self._sent = 0
        self._next_sequence = 1
        self._lock = Lock()
        self._mends = mends
        self._content: LogContent | None = None
        self._repairs = 0
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

    @property
    def run_id(self) -> str:
        """Whose events these are."""
        return self._address.run_id

    @property
    def size(self) -> int:
        """How many bytes have no receipt yet."""
        return self._queued_bytes + self._unacked_bytes

    @property
    def count(self) -> int:
        """How many events have no receipt yet."""
        with self._lock:
            return len(self._queued) + sum(len(batch.events) for batch, _ in self._unacked)

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

    def put(self, *events: Event) -> InvalidField | None:
        """Take events, all or none. Raises InvalidField for one that breaks a rule, and after a failure, that.

        With `mends` it takes what it can, and returns what was wrong with the first one that it could not take.
        """
        if self.failure is not None:
            raise self.failure
        with self._lock:
            if not self._mends:
                self._take_in(events)
                return None
            refused = [refusal for event in events if (refusal := self._take_in_mended(event))]
        return refused[0] if refused else None

    def is_open(self, kind: Kind, key: str) -> bool:
        """Tell whether a step, message or tool call has started and not finished."""
        return self._content is not None and key in getattr(self._content, kind)

    @property
    def is_sealed(self) -> bool:
        """Whether the run's last event is queued."""
        return self._content is not None and self._content.state >= RunState.RUN_STATE_SUCCEEDED

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
            self._content = None  # what was dropped may have been open
            self.failure = None

    def repair(self, refusal: LavantError) -> bool:
        """Replace the event that the server refused, so that its batch can be sent again; tell whether that was done.

        Of a batch that was refused nothing is stored, so it may change. This is for servers whose rules are
        stricter than those known here.
        """
        index = _refused_index(refusal)
        with self._lock:
            if not self._mends or index is None or not self._unacked or self._repairs >= MAX_REPAIRS:
                return False
            batch, size = self._unacked[0]
            if index >= len(batch.events):
                return False
            event = batch.events[index]
            bare = _bare(event)
            if bare == event:  # as of a run that another producer has started
                return False
            self._repairs += 1
            before = event.ByteSize()
            event.CopyFrom(bare or _marker(event, refusal))
            grown = batch.events[index].ByteSize() - before
            self._unacked[0] = batch, size + grown
            self._unacked_bytes += grown
            return True

    def shed(self) -> int:
        """Drop what was not sent yet, but for the run's first and last event; return how many events that are.

        An ErrorReported stands for them.
        """
        with self._lock:
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

    def holds(self, producer_sequence: int) -> bool:
        """Tell whether a batch that begins with this number can still be sent."""
        with self._lock:
            return any(batch.first_producer_sequence == producer_sequence for batch, _ in self._unacked)

    def fail(self, error: LavantError) -> None:
        """Refuse everything from now on. What had no receipt is given up."""
        self.failure = self.failure or error

    def _take_in(self, events: Sequence[Event]) -> None:
        sized = [(event, _size(event)) for event in events]
        if self._content is None:
            # A producer that does not start the run goes on with one that runs.
            starts = bool(events) and events[0].HasField("run_started")
            self._content = LogContent(RunState.RUN_STATE_QUEUED if starts else RunState.RUN_STATE_RUNNING)
        self._content.mark()
        try:
            rules.apply(self._content, events)
        except Violation as violation:
            self._content.undo()
            raise _refusal(violation.path, violation.description) from None
        self._queued.extend(sized)
        self._queued_bytes += sum(size for _, size in sized)

    def _take_in_mended(self, event: Event) -> InvalidField | None:
        try:
            self._take_in((event,))
        except InvalidField as refusal:
            if self._leave_closed_steps(event):
                return self._take_in_mended(event)
            if event.WhichOneof("payload") not in _CONTINUING:
                self._take_in((_marker(event, refusal),))
            return refusal
        return None

    def _leave_closed_steps(self, event: Event) -> bool:
        """Make what belongs to a step that is not open belong to the run; tell whether that changed anything."""
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
