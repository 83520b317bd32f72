"""Rows: what is written for each change, and how what is read is verified."""

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import google_crc32c
from google.protobuf.message import DecodeError

from lavant.server.errors import data_loss
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState, Producer
from lavant.server.store.chunk import Chunk
from lavant.server.store.runs import heard_ns, timeout_ns
from lavant.v1.run_pb2 import Run

SEQUENCE_MASK = 0xFFFF_FFFF
_NUMBERS = struct.Struct("<qqq")
_PURGED_AT_ONCE = 100

Statement = tuple[str, Sequence[Any]]


RUN_COLUMNS = "id, tenant, run_id, run, log, crc"
BATCH_COLUMNS = "id, producer_id, producer_epoch, first_producer_sequence, crc, events"

_INSERT_RUN = """
INSERT INTO runs(id, tenant, run_id, kind, name, state, conversation_id, parent_run_id,
                 create_ns, seen_ns, timeout_ns, change, run, log, crc)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_LABEL = "INSERT INTO labels(tenant, key, value, run) VALUES(?, ?, ?, ?)"
_UPDATE_RUN = "UPDATE runs SET seen_ns = ?, run = ?, log = ?, crc = ? WHERE id = ?"
_UPDATE_STATE = "UPDATE runs SET state = ?, change = ? WHERE id = ?"
_INSERT_BATCH = f"INSERT INTO batches({BATCH_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?)"
_APPEND_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_APPEND = f"INSERT INTO appends(seen_ns, run, log, run_crc, {BATCH_COLUMNS}) VALUES {_APPEND_VALUES}"  # noqa: S608
_NO_UPDATE = (None,) * 5
_DELETE_LABEL = "DELETE FROM labels WHERE tenant = ? AND key = ? AND value = ? AND run = ?"
_PURGE = """
DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE id BETWEEN ? AND ? LIMIT ?)
"""
_PURGED = """
DELETE FROM doomed WHERE run = ? AND NOT EXISTS (SELECT 1 FROM batches WHERE id BETWEEN ? AND ?)
"""


def insert_run(row: int, key: RunKey, log: LogState, change: int) -> list[Statement]:
    """Store a new run."""
    run, (run_bytes, log_bytes) = log.run, _encode(log)
    created = run.create_time.ToNanoseconds()
    values = (row, *key, run.kind, run.name, run.state, run.conversation_id, run.parent_run_id)
    blobs = (run_bytes, log_bytes, run_checksum(row, key, run_bytes, log_bytes))
    labels = [(_INSERT_LABEL, (key.tenant, name, value, row)) for name, value in run.labels.items()]
    return [(_INSERT_RUN, (*values, created, created, timeout_ns(run), change, *blobs)), *labels]


def update_run(row: int, key: RunKey, log: LogState, change: int | None) -> list[Statement]:
    """Store a run as it stands; `change` is its new place in the feed if its state is another one."""
    run_bytes, log_bytes = _encode(log)
    checksum = run_checksum(row, key, run_bytes, log_bytes)
    statements: list[Statement] = [(_UPDATE_RUN, (heard_ns(log.run), run_bytes, log_bytes, checksum, row))]
    if change is not None:
        statements.append((_UPDATE_STATE, (log.run.state, change, row)))
    return statements


def insert_batch(row: int, key: RunKey, producer: Producer, chunk: Chunk) -> Statement:
    """Store a batch of events."""
    batch, events = row << 32 | chunk.last_sequence, chunk.encode()
    return _INSERT_BATCH, (batch, *producer, batch_checksum(batch, key, producer, events), events)


def delete_run(row: int, key: RunKey, labels: dict[str, str], last_change: int) -> list[Statement]:
    """Delete a run, and doom its batches; the feed's positions are not given out again."""
    return [
        ("DELETE FROM runs WHERE id = ?", (row,)),
        *((_DELETE_LABEL, (key.tenant, name, value, row)) for name, value in labels.items()),
        ("INSERT INTO doomed(run) VALUES(?)", (row,)),
        ("UPDATE meta SET value = ? WHERE name = 'change'", (last_change,)),
    ]


def purge(row: int) -> list[Statement]:
    """Delete some batches of a doomed run, and the doom with the last of them."""
    first, last = row << 32, row << 32 | SEQUENCE_MASK
    return [(_PURGE, (first, last, _PURGED_AT_ONCE)), (_PURGED, (row, first, last))]


def merged(statements: Iterable[Statement]) -> list[Statement]:
    """The same changes in as few statements as can be: of each run only how it stands at last.

    Appends alone come down to one statement, which needs no transaction around it. Each statement
    costs the writer a turn at the interpreter's lock, which a busy event loop is slow to give.

    Appends and updates move behind the other statements. That changes nothing: they name rows by numbers
    that are never given out again, a run is created before and deleted after all of its appends, and
    what an append leaves of a deleted run is doomed with it, to be purged by a later group.
    """
    batches: list[Sequence[Any]] = []
    updates: dict[int, Sequence[Any]] = {}
    others: list[Statement] = []
    for sql, values in statements:
        if sql is _INSERT_BATCH:
            batches.append(values)
        elif sql is _UPDATE_RUN:
            updates[values[-1]] = values
        else:
            others.append((sql, values))
    # The last batch of each run carries its update; the earlier ones carry none.
    appends = [(*updates.pop(batch[0] >> 32, _NO_UPDATE)[:-1], *batch) for batch in reversed(batches)][::-1]
    if appends:
        others.append((", ".join([_APPEND] + [_APPEND_VALUES] * (len(appends) - 1)), (*chain.from_iterable(appends),)))
    others += [(_UPDATE_RUN, values) for values in updates.values()]
    return others


def decode_run(values: Sequence[Any]) -> tuple[int, RunKey, LogState]:
    """Read RUN_COLUMNS; raises DATA_LOSS if they are not what was written."""
    try:
        row, tenant, run_id, run_bytes, log_bytes, checksum = values
        key = RunKey(tenant, run_id)
        if run_checksum(row, key, run_bytes, log_bytes) == checksum:
            return row, key, LogState.decode(Run.FromString(run_bytes), log_bytes)
    except (TypeError, ValueError, AttributeError, DecodeError, struct.error):
        pass
    raise data_loss("a stored run fails its checksum")


def decode_batch(key: RunKey, values: Sequence[Any]) -> tuple[Producer, Chunk]:
    """Read BATCH_COLUMNS of a run; raises DATA_LOSS if they are not what was written."""
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
    """CRC32C over a run's row and the names it goes by."""
    named = google_crc32c.value(_NUMBERS.pack(row, len(run), len(log)) + _name(key))
    return int(google_crc32c.extend(google_crc32c.extend(named, run), log))


def batch_checksum(batch: int, key: RunKey, producer: Producer, events: bytes) -> int:
    """CRC32C that binds a chunk, by its own checksum, to its run, its place and its producer."""
    numbers = _NUMBERS.pack(batch, producer.epoch, producer.first_sequence)
    return int(google_crc32c.value(numbers + _name(key) + producer.producer_id.encode() + b"\0" + events[-4:]))


def _name(key: RunKey) -> bytes:
    return f"{key.tenant}\0{key.run_id}\0".encode()


def _encode(log: LogState) -> tuple[bytes, bytes]:
    return log.run.SerializeToString(), log.encode()
