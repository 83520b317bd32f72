"""The rules of AppendEvents that all engines share: pure decisions, no I/O."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic_core import from_json, to_json

from lavant.contract import events as event_rules
from lavant.contract.events import ID_RULE, LogContent
from lavant.contract.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from lavant.contract.text import is_id
from lavant.contract.values import Violation
from lavant.server.errors import ServiceError, data_loss, from_violation, invalid_field
from lavant.server.model import SYSTEM_RECORD, is_terminal
from lavant.server.store.chunk import Chunk, varint
from lavant.server.store.ownership import NOBODY, Owner
from lavant.v1.error_pb2 import ErrorReason, ProducerConflict, ProducerFenced, ProducerGap
from lavant.v1.event_pb2 import Event, RunStarted
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Error, Run, RunFinished, RunState

MAX_PRODUCERS = 1_000
MAX_PRODUCER_BYTES = 64 << 10  # of the IDs of a run's producers
_ENTRY_BYTES = 150  # memory of an ID in a dict beside its text
_BASE_BYTES = 2_000
_RECORD_TIME = b"\x22"  # Event.record_time: field 4, length-delimited
MAX_RUN_EVENTS = 2**32 - 1


class LogState:
    """State of a run's log: the run, and what its next batch is checked against.

    `producers` maps a producer_id to its epoch and the last stored producer sequence of that epoch, `owners` to the ID
    of the principal that it belongs to; those that belong to nobody are not in `owners`. `advance` sets both.
    """

    __slots__ = (
        "_latest",
        "_others",
        "_producer_bytes",
        "cancel_reason",
        "content",
        "encoded_bytes",
        "owners",
        "producers",
        "run",
        "stored_bytes",
    )

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stored_bytes = 0  # of the run's events
        self.producers: dict[str, tuple[int, int]] = {}
        self.owners: dict[str, str] = {}
        self.encoded_bytes = 0  # of the state when it was last stored or read
        self._producer_bytes = 0
        # The JSON of all producers but the one that appended last: one that appends much writes its own part only.
        self._latest = ""
        self._others: bytes | None = None
        self.content = LogContent(run.state)
        self.cancel_reason: str | None = None

    @property
    def sealed(self) -> bool:
        """Whether the log is sealed: no event may follow."""
        return is_terminal(self.run.state)

    @property
    def weight(self) -> int:
        """About the bytes of memory that the state takes."""
        return _BASE_BYTES + 2 * self.encoded_bytes + _ENTRY_BYTES * (len(self.producers) + len(self.content))

    def admits(self, producer_id: str) -> bool:
        """Return whether a producer is known, or another one may be added."""
        if producer_id in self.producers:
            return True
        size = self._producer_bytes + len(producer_id.encode())
        return len(self.producers) < MAX_PRODUCERS and size <= MAX_PRODUCER_BYTES

    def advance(self, producer_id: str, epoch: int, last: int, owner_id: str = "") -> None:
        """Set the epoch of a producer, its last stored producer sequence, and to whom it belongs."""
        if producer_id not in self.producers:
            self._producer_bytes += len(producer_id.encode())
        if producer_id != self._latest:
            self._latest, self._others = producer_id, None
        self.producers[producer_id] = (epoch, last)
        if owner_id:
            self.owners[producer_id] = owner_id
        else:
            self.owners.pop(producer_id, None)

    def encode(self) -> bytes:
        """Encode everything except the Run as compact JSON."""
        pieces = [
            b'{"bytes":%d,"producers":' % self.stored_bytes,
            self._encode_producers(),
            b',"content":',
            self.content.encode(),
        ]
        if self.cancel_reason is not None:
            pieces += (b',"cancel_reason":', to_json(self.cancel_reason))
        return b"".join((*pieces, b"}"))

    def _encode_producers(self) -> bytes:
        if self._others is None:
            self._others = to_json({key: self._encodable(key) for key in self.producers if key != self._latest})
        if self._latest not in self.producers:
            return self._others
        own = to_json({self._latest: self._encodable(self._latest)})
        return own if self._others == b"{}" else b"%b,%b" % (self._others[:-1], own[1:])

    def _encodable(self, producer_id: str) -> tuple[int | str, ...]:
        owner_id = self.owners.get(producer_id)
        return self.producers[producer_id] if owner_id is None else (*self.producers[producer_id], owner_id)

    @classmethod
    def decode(cls, run: Run, encoded: bytes) -> "LogState":
        """Decode the result of `encode`."""
        parts = from_json(encoded)
        log = cls(run)
        for producer_id, (epoch, last, *owner_ids) in parts["producers"].items():
            log.producers[producer_id] = (epoch, last)
            for owner_id in owner_ids:
                log.owners[producer_id] = owner_id
        log._producer_bytes = sum(len(producer_id.encode()) for producer_id in log.producers)
        log.encoded_bytes = len(encoded)
        log.stored_bytes = parts.get("bytes", 0)  # runs that were stored without it do not count
        log.content = LogContent.decode(parts["content"], run.state)
        log.cancel_reason = parts.get("cancel_reason")
        return log


class Producer(NamedTuple):
    """Producer of a batch, its epoch, and the producer sequence of the batch's first event."""

    producer_id: str
    epoch: int
    first_sequence: int


SERVER = Producer("", 0, 0)


class Appended(NamedTuple):
    """Outcome of a batch that advances the log by a chunk. Store the chunk before sending the receipt."""

    receipt: BatchReceipt
    chunk: Chunk
    state_changed: bool


class Repeated(NamedTuple):
    """Outcome of a batch whose producer sequences are stored: compare the content, then return the first receipt."""

    first_producer_sequence: int
    last_producer_sequence: int


class SignOfLife(NamedTuple):
    """Outcome of a heartbeat: nothing to append. `run_changed`: whether the run must be stored."""

    receipt: BatchReceipt
    run_changed: bool


def plan(
    log: LogState, batch: ProducerBatch, now_ns: int, owner: Owner = NOBODY, *, by_server: bool = False
) -> Appended | Repeated | SignOfLife:
    """Decide the outcome of a batch that a principal sent, and advance `log` by it.

    Some events are the server's alone to write.

    Appended events are numbered in place. Raises INVALID_FIELD, PERMISSION_DENIED, PRODUCER_FENCED, RUN_SEALED,
    PRODUCER_GAP or QUOTA_EXCEEDED; `log` is then as before, and so is the batch unless it is too large.
    A producer belongs to the principal whose events of it were stored last.

    A heartbeat of a higher epoch fences no producer off: an epoch begins with its first event.
    """
    events = list(batch.events)
    _check_limits(batch, len(events))
    if log.owners:
        owner.check(log.owners.get(batch.producer_id, ""), f"producer {batch.producer_id}", "producer_id")
    last = _last_of_epoch(log, batch)
    if not events:
        return _sign_of_life(log, last, now_ns)
    first = batch.first_producer_sequence
    batch_last = first + len(events) - 1
    if batch_last <= last:
        return Repeated(first, batch_last)
    if log.sealed:
        raise ServiceError(
            ErrorReason.ERROR_REASON_RUN_SEALED, f"run {log.run.run_id} has ended; nothing can be appended to it"
        )
    if first != last + 1:
        raise _gap(last + 1)
    _check_room(log, batch)
    chunk, state_changed = _apply_all(log, events, now_ns, by_server=by_server)
    log.run.producer_seen_time.CopyFrom(log.run.update_time)
    log.advance(batch.producer_id, batch.producer_epoch, batch_last, owner.id)
    receipt = BatchReceipt(
        last_producer_sequence=batch_last, first_sequence=chunk.first_sequence, last_sequence=chunk.last_sequence
    )
    return Appended(receipt, chunk, state_changed)


def plan_abandonment(log: LogState, now_ns: int) -> Chunk:
    """End an open run as ABANDONED, and advance `log` by the events that record it."""
    error = Error(type="producer_silent", message="the producer was silent for longer than its producer_timeout")
    events = [] if log.content.started else [Event(run_started=RunStarted())]
    events.append(Event(run_finished=RunFinished(state=RunState.RUN_STATE_ABANDONED, error=error)))
    now = _record_time(log.run, now_ns)
    for sequence, event in enumerate(events, log.run.last_sequence + 1):
        event.event_id = f"server.{sequence}"
        event.event_time.CopyFrom(now)
    return _apply_all(log, events, now_ns, by_server=True)[0]


def same_content(stored: Event, sent: Event) -> bool:
    """Return whether two events are equal, ignoring what the server sets: sequence and record_time."""
    return _canonical(stored) == _canonical(sent)


def answer_repeated(batch: ProducerBatch, repeated: Repeated, stored: Mapping[int, Event]) -> BatchReceipt:
    """Return the first receipt of a batch that is already stored.

    `stored` maps producer sequences to the producer's stored events, at least those of the batch. Raises DATA_LOSS
    if one of them is missing, PRODUCER_CONFLICT if the content differs.
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


def _producer_conflict(producer_sequence: int) -> ServiceError:
    """Return the error for a stored producer sequence that was sent again with different content."""
    return ServiceError(
        ErrorReason.ERROR_REASON_PRODUCER_CONFLICT,
        f"producer sequence {producer_sequence} was stored with other content; use a higher producer_epoch",
        detail=ProducerConflict(producer_sequence=producer_sequence),
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
        raise ServiceError(
            ErrorReason.ERROR_REASON_PRODUCER_FENCED,
            f"a newer producer is at work with epoch {epoch}; stop",
            detail=ProducerFenced(epoch=epoch),
        )
    return last if batch.producer_epoch == epoch else 0


def _sign_of_life(log: LogState, last: int, now_ns: int) -> SignOfLife:
    receipt = BatchReceipt(last_producer_sequence=last)
    seen = log.run.producer_seen_time
    if log.sealed or now_ns <= seen.ToNanoseconds():
        return SignOfLife(receipt, False)
    seen.FromNanoseconds(now_ns)
    return SignOfLife(receipt, True)


def _gap(expected: int) -> ServiceError:
    return ServiceError(
        ErrorReason.ERROR_REASON_PRODUCER_GAP,
        f"producer sequence {expected} is expected; send from there",
        detail=ProducerGap(expected_producer_sequence=expected),
    )


def _check_room(log: LogState, batch: ProducerBatch) -> None:
    if not log.admits(batch.producer_id):
        few = len(log.producers) < MAX_PRODUCERS
        kind, limit = ("producer_id_bytes", MAX_PRODUCER_BYTES) if few else ("producers", MAX_PRODUCERS)
        advice = "use shorter IDs" if few else "reuse a producer_id with a higher epoch"
        raise _quota(f"a run has at most {limit} {kind.replace('_', ' ')}; {advice}", kind, limit)
    if log.run.last_sequence + len(batch.events) > MAX_RUN_EVENTS:
        raise _quota(f"a run has at most {MAX_RUN_EVENTS} events; begin another run", "events", MAX_RUN_EVENTS)


def _quota(message: str, kind: str, limit: int) -> ServiceError:
    metadata = {"kind": kind, "limit": str(limit)}
    return ServiceError(ErrorReason.ERROR_REASON_QUOTA_EXCEEDED, message, metadata=metadata)


def _apply_all(log: LogState, events: Sequence[Event], now_ns: int, *, by_server: bool) -> tuple[Chunk, bool]:
    """Check, number and serialize events, and advance `log` by them; return whether the run's state changed."""
    content = log.content
    content.mark()
    try:
        types = event_rules.apply(content, events, system_type=SYSTEM_RECORD if by_server else None)
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
    """Serialize events with sequence and record_time, which replace the producer's values."""
    # Appended after the event: parsers merge a message that occurs twice. Zeros are written out, so that they
    # replace the producer's values.
    time = b"\x08" + varint(now.seconds) + b"\x10" + varint(now.nanos)
    recorded = _RECORD_TIME + varint(len(time)) + time
    for sequence, event in enumerate(events, first):
        event.sequence = sequence
    serialized = [data + recorded for data in map(Event.SerializeToString, events)]
    numbering = len(recorded) + len(varint(first)) + 1
    if sum(map(len, serialized)) > MAX_BATCH_BYTES + len(events) * numbering:
        raise invalid_field("batch", f"must have at most {MAX_BATCH_BYTES} bytes; send several batches")
    return serialized


def _advance(log: LogState, chunk: Chunk, last: Event, now: Timestamp) -> bool:
    run = log.run
    log.stored_bytes += len(chunk.data)
    run.last_sequence = chunk.last_sequence
    run.update_time.CopyFrom(now)
    state_changed = run.state != log.content.state
    run.state = log.content.state
    if log.sealed:
        run.end_time.CopyFrom(now)
        run.result.CopyFrom(last.run_finished)
    return state_changed


def _record_time(run: Run, now_ns: int) -> Timestamp:
    """Return the time of an append: never before the previous one, even if the clock was set back."""
    before = run.update_time if run.HasField("update_time") else run.create_time
    seconds, nanos = max(divmod(now_ns, 1_000_000_000), (before.seconds, before.nanos))
    return Timestamp(seconds=seconds, nanos=nanos)


def _canonical(event: Event) -> bytes:
    bare = Event()
    bare.CopyFrom(event)
    bare.ClearField("sequence")
    bare.ClearField("record_time")
    return bare.SerializeToString(deterministic=True)
