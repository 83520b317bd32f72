"""Rows: the statements that store each change, and the checks of rows that are read."""

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError

from lavant.server.errors import data_loss
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState, Producer
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import DELETIONS_KEPT
from lavant.server.store.restrictions import restricted_settings
from lavant.server.store.runs import producer_seen_ns, timeout_ns
from lavant.v1.run_pb2 import Run

SEQUENCE_MASK = 0xFFFF_FFFF
_BAD_RUN = "a stored run fails its checksum"
_NUMBERS = struct.Struct("<qqq")
_PURGED_AT_ONCE = 100
_DELETIONS_KEPT_NS = int(DELETIONS_KEPT * 1e9)


class Statement(NamedTuple):
    """SQL statement, and the values bound in it."""

    sql: str
    values: Sequence[Any]


class RunUpdate(NamedTuple):
    """New content of a row of `runs`, by its number."""

    seen_ns: int
    run: bytes
    log: bytes
    crc: int
    row: int


class BatchInsert(NamedTuple):
    """New row of `batches`: BATCH_COLUMNS."""

    id: int
    producer_id: str
    producer_epoch: int
    first_producer_sequence: int
    crc: int
    events: bytes


Write = Statement | RunUpdate | BatchInsert

RUN_COLUMNS = "runs.id, runs.tenant, runs.run_id, runs.run, runs.log, runs.crc"
BATCH_COLUMNS = "id, producer_id, producer_epoch, first_producer_sequence, crc, events"

_INSERT_RUN = """
INSERT INTO runs(id, tenant, run_id, created, kind, name, state, conversation_id, parent_run_id,
                 create_ns, seen_ns, timeout_ns, change, run, log, crc)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_LABEL = "INSERT INTO labels(tenant, key, value, created, run) VALUES(?, ?, ?, ?, ?)"
_UPDATE_RUN = "UPDATE runs SET seen_ns = ?, run = ?, log = ?, crc = ? WHERE id = ?"
_UPDATE_STATE = "UPDATE runs SET state = ?, change = ? WHERE id = ?"
_APPEND_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_APPEND = f"INSERT INTO appends(seen_ns, run, log, run_crc, {BATCH_COLUMNS}) VALUES {_APPEND_VALUES}"  # noqa: S608
_NO_UPDATE = (None,) * 5
_DELETE_LABEL = """
DELETE FROM labels WHERE tenant = ? AND key = ? AND value = ?
    AND created = (SELECT created FROM runs WHERE id = ?4) AND run = ?4
"""
_PURGE = """
DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE id BETWEEN ? AND ? LIMIT ?)
"""
_FORGET_DELETIONS = """
DELETE FROM deletions WHERE change IN (SELECT change FROM deletions ORDER BY change LIMIT 2) AND time_ns < ?
"""
_PURGED = """
DELETE FROM unpurged WHERE run = ? AND NOT EXISTS (SELECT 1 FROM batches WHERE id BETWEEN ? AND ?)
"""


def insert_run(row: int, key: RunKey, log: LogState, change: int, position: int) -> list[Write]:
    """Return the statements that store a new run, at its positions in the feed of changes and in lists."""
    run, (run_bytes, log_bytes) = log.run, _encode(log)
    times = (run.create_time.ToNanoseconds(), producer_seen_ns(run), timeout_ns(run))
    values = (row, *key, position, run.kind, run.name, run.state, run.conversation_id, run.parent_run_id)
    blobs = (run_bytes, log_bytes, run_checksum(row, key, run_bytes, log_bytes))
    labels = [Statement(_INSERT_LABEL, (key.tenant, name, value, position, row)) for name, value in run.labels.items()]
    return [Statement(_INSERT_RUN, (*values, *times, change, *blobs)), *labels]


def update_run(row: int, key: RunKey, log: LogState, change: int | None) -> list[Write]:
    """Return the writes that store a run's snapshot; `change` is its new position in the feed if its state changed."""
    run_bytes, log_bytes = _encode(log)
    checksum = run_checksum(row, key, run_bytes, log_bytes)
    writes: list[Write] = [RunUpdate(producer_seen_ns(log.run), run_bytes, log_bytes, checksum, row)]
    if change is not None:
        writes.append(Statement(_UPDATE_STATE, (log.run.state, change, row)))
    return writes


def insert_batch(row: int, key: RunKey, producer: Producer, chunk: Chunk) -> BatchInsert:
    """Return the row that stores a batch of events."""
    batch, events = row << 32 | chunk.last_sequence, chunk.encode()
    return BatchInsert(batch, *producer, batch_checksum(batch, key, producer, events), events)


def delete_run(row: int, key: RunKey, run: Run, change: int, now_ns: int) -> list[Statement]:
    """Return the statements that delete a run and mark its batches for purging. Feed positions are never reused.

    Each deletion removes up to two old ones, so that their number stays bounded without a separate task.
    """
    # The table of deletions has no column for the settings that restrictions depend on, and files that exist stay
    # readable: the run with its settings takes the place of its ID, as a BLOB, which is distinct from every text.
    deleted = restricted_settings(key.run_id, run).SerializeToString()
    deletion = (change, key.tenant, deleted, now_ns)
    return [
        *(Statement(_DELETE_LABEL, (key.tenant, name, value, row)) for name, value in run.labels.items()),
        Statement("DELETE FROM runs WHERE id = ?", (row,)),
        Statement("INSERT INTO unpurged(run) VALUES(?)", (row,)),
        Statement("INSERT INTO deletions(change, tenant, run_id, time_ns) VALUES(?, ?, ?, ?)", deletion),
        Statement(_FORGET_DELETIONS, (now_ns - _DELETIONS_KEPT_NS,)),
        Statement("UPDATE meta SET value = ? WHERE name = 'change'", (change,)),
    ]


def purge(row: int) -> list[Statement]:
    """Return the statements that delete some batches of a deleted run, and its mark together with the last ones."""
    first, last = row << 32, row << 32 | SEQUENCE_MASK
    return [Statement(_PURGE, (first, last, _PURGED_AT_ONCE)), Statement(_PURGED, (row, first, last))]


def merged(writes: Iterable[Write]) -> list[Statement]:
    """Return the same changes in as few statements as possible: of each run only its last state.

    Appends alone become one statement, which needs no transaction around it. For each statement the writer must
    acquire the interpreter's lock, which a busy event loop is slow to release.

    Appends and updates move after the other statements. That is safe: they refer to rows by numbers that are never
    reused, a run is created before and deleted after all of its appends, and a later group purges the rows that
    an append adds to a deleted run.
    """
    batches: list[BatchInsert] = []
    updates: dict[int, RunUpdate] = {}
    statements: list[Statement] = []
    for write in writes:
        if isinstance(write, BatchInsert):
            batches.append(write)
        elif isinstance(write, RunUpdate):
            updates[write.row] = write
        else:
            statements.append(write)
    # The last batch of each run carries its update; the earlier ones carry none.
    appends = [(*updates.pop(batch.id >> 32, _NO_UPDATE)[:-1], *batch) for batch in reversed(batches)][::-1]
    if appends:
        sql = ", ".join([_APPEND] + [_APPEND_VALUES] * (len(appends) - 1))
        statements.append(Statement(sql, (*chain.from_iterable(appends),)))
    statements += [Statement(_UPDATE_RUN, update) for update in updates.values()]
    return statements


def decode_run(values: Sequence[Any]) -> tuple[int, RunKey, LogState]:
    """Decode RUN_COLUMNS. Raises DATA_LOSS if they are not what was written."""
    run = decode_snapshot(*values)
    row, tenant, run_id, _, log_bytes, _ = values
    try:
        return row, RunKey(tenant, run_id), LogState.decode(run, log_bytes)
    except (TypeError, ValueError, AttributeError):
        raise data_loss(_BAD_RUN) from None


def decode_snapshot(row: int, tenant: str, run_id: str, run_bytes: bytes, log_bytes: bytes, checksum: int) -> Run:
    """Decode the run alone of RUN_COLUMNS: its log takes longer. Raises DATA_LOSS as `decode_run` does."""
    try:
        if run_checksum(row, RunKey(tenant, run_id), run_bytes, log_bytes) == checksum:
            return Run.FromString(run_bytes)
    except (TypeError, ValueError, AttributeError, DecodeError, struct.error):
        pass
    raise data_loss(_BAD_RUN)


def decode_batch(key: RunKey, values: Sequence[Any]) -> tuple[Producer, Chunk]:
    """Decode BATCH_COLUMNS of a run. Raises DATA_LOSS if they are not what was written."""
    try:
        batch, producer_id, epoch, first_sequence, checksum, events = values
        producer = Producer(producer_id, epoch, first_sequence)
        valid = batch_checksum(batch, key, producer, events) == checksum
    except (TypeError, ValueError, AttributeError, struct.error):
        valid = False
    if not valid:
        raise data_loss("a stored batch of events is not the one that was written there")
    chunk = Chunk.decode(events)
    if chunk.last_sequence != batch & SEQUENCE_MASK:
        raise data_loss("a stored batch of events is out of place")
    return producer, chunk


def run_checksum(row: int, key: RunKey, run: bytes, log: bytes) -> int:
    """Return the CRC32C over a run's row, its tenant and its ID."""
    named = google_crc32c.value(_NUMBERS.pack(row, len(run), len(log)) + _name(key))
    return int(google_crc32c.extend(google_crc32c.extend(named, run), log))


def batch_checksum(batch: int, key: RunKey, producer: Producer, events: bytes) -> int:
    """Return the CRC32C that binds a chunk, by its own checksum, to its run, batch number and producer."""
    numbers = _NUMBERS.pack(batch, producer.epoch, producer.first_sequence)
    return int(google_crc32c.value(numbers + _name(key) + producer.producer_id.encode() + b"\0" + events[-4:]))


def _name(key: RunKey) -> bytes:
    return f"{key.tenant}\0{key.run_id}\0".encode()


def _encode(log: LogState) -> tuple[bytes, bytes]:
    run, state = log.run.SerializeToString(), log.encode()
    log.encoded_bytes = len(run) + len(state)
    return run, state
