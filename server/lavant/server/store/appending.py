"""The rules of AppendEvents that all engines share: pure decisions, no I/O."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic_core import from_json, to_json

from lavant.contract import events as event_rules
from lavant.contract.content import LogContent
from lavant.contract.events import ID_RULE
from lavant.contract.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from lavant.contract.text import is_id
from lavant.contract.violation import Violation
from lavant.server.errors import LavantError, data_loss, from_violation, invalid_field
from lavant.server.model import is_terminal
from lavant.server.store.chunk import Chunk, varint
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event, RunStarted
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Error, Run, RunFinished, RunState

MAX_PRODUCERS = 1_000
_RECORD_TIME = b"\x22"  # Event.record_time: field 4, length-delimited
MAX_RUN_EVENTS = 2**32 - 1


class LogState:
    """A run and what its next batch is checked against.

    `producers` maps a producer_id to its epoch and the last stored number of that epoch.
    """

    __slots__ = ("cancel_reason", "content", "producers", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.producers: dict[str, tuple[int, int]] = {}
        self.content = LogContent(run.state)
        self.cancel_reason: str | None = None

    @property
    def sealed(self) -> bool:
        """Whether nothing may follow."""
        return is_terminal(self.run.state)

    def encode(self) -> bytes:
        """Turn all but the Run into compact JSON."""
        parts: dict[str, Any] = {"producers": self.producers, "content": self.content.encode()}
        if self.cancel_reason is not None:
            parts["cancel_reason"] = self.cancel_reason
        return to_json(parts)

    @classmethod
    def decode(cls, run: Run, encoded: bytes) -> "LogState":
        """Read what `encode` gave."""
        parts = from_json(encoded)
        log = cls(run)
        log.producers = {producer_id: (epoch, last) for producer_id, (epoch, last) in parts["producers"].items()}
        log.content = LogContent.decode(parts["content"], run.state)
        log.cancel_reason = parts.get("cancel_reason")
        return log


class Producer(NamedTuple):
    """Who a batch came from, and its number there."""

    producer_id: str
    epoch: int
    first_sequence: int


SERVER = Producer("", 0, 0)


class Appended(NamedTuple):
    """The log has advanced by a chunk, which is to be stored before the receipt goes out."""

    receipt: BatchReceipt
    chunk: Chunk
    state_changed: bool


class Repeated(NamedTuple):
    """The producer's numbers are stored already: compare the content, then give the first answer."""

    first_producer_sequence: int
    last_producer_sequence: int


class SignOfLife(NamedTuple):
    """There is nothing to append. `run_changed` tells whether the run is to be stored."""

    receipt: BatchReceipt
    run_changed: bool


def plan(log: LogState, batch: ProducerBatch, now_ns: int) -> Appended | Repeated | SignOfLife:
    """Decide what becomes of a batch, and advance `log` by it.

    Appended events are numbered in place. Raises INVALID_FIELD, PRODUCER_FENCED, RUN_SEALED,
    PRODUCER_GAP or QUOTA_EXCEEDED; `log` is then as before, and so is the batch unless it is too large.

    A sign of life of a higher epoch fences nobody off: an epoch begins with its first event.
    """
    events = list(batch.events)
    _check_limits(batch, len(events))
    last = _last_of_epoch(log, batch)
    if not events:
        return _sign_of_life(log, last, now_ns)
    first = batch.first_producer_sequence
    batch_last = first + len(events) - 1
    if batch_last <= last:
        return Repeated(first, batch_last)
    if log.sealed:
        raise LavantError(
            ErrorReason.ERROR_REASON_RUN_SEALED, f"run {log.run.run_id} has ended; nothing can be appended to it"
        )
    if first != last + 1:
        raise _gap(last + 1)
    _check_room(log, batch)
    chunk, state_changed = _apply_all(log, events, now_ns)
    log.run.producer_seen_time.CopyFrom(log.run.update_time)
    log.producers[batch.producer_id] = (batch.producer_epoch, batch_last)
    receipt = BatchReceipt(
        last_producer_sequence=batch_last, first_sequence=chunk.first_sequence, last_sequence=chunk.last_sequence
    )
    return Appended(receipt, chunk, state_changed)


def plan_abandonment(log: LogState, now_ns: int) -> Chunk:
    """End an open run as ABANDONED, and advance `log` by the events that say so."""
    error = Error(type="producer_silent", message="the producer was silent for longer than its producer_timeout")
    events = [] if log.content.started else [Event(run_started=RunStarted())]
    events.append(Event(run_finished=RunFinished(state=RunState.RUN_STATE_ABANDONED, error=error)))
    now = _record_time(log.run, now_ns)
    for sequence, event in enumerate(events, log.run.last_sequence + 1):
        event.event_id = f"server.{sequence}"
        event.event_time.CopyFrom(now)
    return _apply_all(log, events, now_ns)[0]


def same_content(stored: Event, sent: Event) -> bool:
    """Tell whether two events are equal but for what the server sets: sequence and record_time."""
    return _canonical(stored) == _canonical(sent)


def answer_repeated(batch: ProducerBatch, repeated: Repeated, stored: Mapping[int, Event]) -> BatchReceipt:
    """Answer a batch that is stored already as it was answered first, given the producer's stored events.

    `stored` maps producer sequences to events, at least those of the batch: DATA_LOSS if one is missing.
    Raises PRODUCER_CONFLICT if the content is another one.
    """
    for number, event in enumerate(batch.events, repeated.first_producer_sequence):
        if number not in stored:
            raise data_loss(f"the event with producer sequence {number} is missing")
        if not same_content(stored[number], event):
            raise _producer_conflict(number)
    return BatchReceipt(
        last_producer_sequence=repeated.last_producer_sequence,
        first_sequence=stored[repeated.first_producer_sequence].sequence,
        last_sequence=stored[repeated.last_producer_sequence].sequence,
        duplicate=True,
    )


def _producer_conflict(producer_sequence: int) -> LavantError:
    """A stored number was sent again with other content."""
    return LavantError(
        ErrorReason.ERROR_REASON_PRODUCER_CONFLICT,
        f"producer sequence {producer_sequence} was stored with other content; use a higher producer_epoch",
        metadata={"producer_sequence": str(producer_sequence)},
    )


def _check_limits(batch: ProducerBatch, count: int) -> None:
    if not is_id(batch.producer_id):
        raise invalid_field("batch.producer_id", ID_RULE)
    if batch.producer_epoch < 0:
        raise invalid_field("batch.producer_epoch", "must not be negative")
    if not count:
        return
    if batch.first_producer_sequence < 1:
        raise invalid_field("batch.first_producer_sequence", "must be at least 1; numbers are counted from 1")
    if count > MAX_BATCH_EVENTS:
        raise invalid_field("batch.events", f"must hold at most {MAX_BATCH_EVENTS} events; send several batches")


def _last_of_epoch(log: LogState, batch: ProducerBatch) -> int:
    epoch, last = log.producers.get(batch.producer_id, (-1, 0))
    if batch.producer_epoch < epoch:
        raise LavantError(
            ErrorReason.ERROR_REASON_PRODUCER_FENCED,
            f"a newer producer is at work with epoch {epoch}; stop",
            metadata={"epoch": str(epoch)},
        )
    return last if batch.producer_epoch == epoch else 0


def _sign_of_life(log: LogState, last: int, now_ns: int) -> SignOfLife:
    receipt = BatchReceipt(last_producer_sequence=last)
    seen = log.run.producer_seen_time
    if log.sealed or now_ns <= seen.ToNanoseconds():
        return SignOfLife(receipt, False)
    seen.FromNanoseconds(now_ns)
    return SignOfLife(receipt, True)


def _gap(expected: int) -> LavantError:
    return LavantError(
        ErrorReason.ERROR_REASON_PRODUCER_GAP,
        f"producer sequence {expected} is expected; send from there",
        metadata={"expected_producer_sequence": str(expected)},
    )


def _check_room(log: LogState, batch: ProducerBatch) -> None:
    if batch.producer_id not in log.producers and len(log.producers) >= MAX_PRODUCERS:
        raise _quota(f"a run has at most {MAX_PRODUCERS} producers; reuse a producer_id with a higher epoch")
    if log.run.last_sequence + len(batch.events) > MAX_RUN_EVENTS:
        raise _quota(f"a run has at most {MAX_RUN_EVENTS} events; begin another run")


def _quota(message: str) -> LavantError:
    return LavantError(ErrorReason.ERROR_REASON_QUOTA_EXCEEDED, message)


def _apply_all(log: LogState, events: Sequence[Event], now_ns: int) -> tuple[Chunk, bool]:
    """Check, number and serialize events, and advance `log` by them; tells whether the run's state changed."""
    content = log.content
    content.mark()
    try:
        types = event_rules.apply(content, events)
        now = _record_time(log.run, now_ns)
        serialized = _number(events, log.run.last_sequence + 1, now)
    except BaseException as error:
        content.undo()
        if isinstance(error, Violation):
            raise from_violation(error) from None
        raise
    chunk = Chunk.of(log.run.last_sequence + 1, types, serialized)
    return chunk, _advance(log, chunk, events[-1], now)


def _number(events: Sequence[Event], first: int, now: Timestamp) -> list[bytes]:
    """Serialize with sequence and record_time, whatever the producer had there."""
    serialized: list[bytes] = []
    # Put behind: parsers merge a message that comes twice; with zeros spelled out, to replace what is there.
    time = b"\x08" + varint(now.seconds) + b"\x10" + varint(now.nanos)
    recorded = _RECORD_TIME + varint(len(time)) + time
    for sequence, event in enumerate(events, first):
        event.sequence = sequence
        serialized.append(event.SerializeToString() + recorded)
    numbering = len(recorded) + len(varint(first)) + 1
    if sum(map(len, serialized)) > MAX_BATCH_BYTES + len(events) * numbering:
        raise invalid_field("batch", f"must have at most {MAX_BATCH_BYTES} bytes; send several batches")
    return serialized


def _advance(log: LogState, chunk: Chunk, last: Event, now: Timestamp) -> bool:
    run = log.run
    run.last_sequence = chunk.last_sequence
    run.update_time.CopyFrom(now)
    state_changed = run.state != log.content.state
    run.state = log.content.state
    if log.sealed:
        run.end_time.CopyFrom(now)
        run.result.CopyFrom(last.run_finished)
    return state_changed


def _record_time(run: Run, now_ns: int) -> Timestamp:
    """The time of an append, never before an earlier one, whatever the clock does."""
    before = run.update_time if run.HasField("update_time") else run.create_time
    seconds, nanos = max(divmod(now_ns, 1_000_000_000), (before.seconds, before.nanos))
    return Timestamp(seconds=seconds, nanos=nanos)


def _canonical(event: Event) -> bytes:
    bare = Event()
    bare.CopyFrom(event)
    bare.ClearField("sequence")
    bare.ClearField("record_time")
    return bare.SerializeToString(deterministic=True)
