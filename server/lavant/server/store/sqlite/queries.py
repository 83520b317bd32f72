"""What is asked of the file, each with a connection that is in a transaction."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import apsw
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.errors import data_loss, run_not_found
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState, Repeated, producer_conflict, repeated_receipt, same_content
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import RunChange, RunPage, RunQuery
from lavant.server.store.sqlite.logs import load
from lavant.server.store.sqlite.rows import BATCH_COLUMNS, RUN_COLUMNS, SEQUENCE_MASK, decode_batch, decode_run
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, EventBatch, ProducerBatch
from lavant.v1.run_service_pb2 import RunFilter

_INT64_MAX = 2**63 - 1
_NAMES = """EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE wanted.value = name OR (
    substr(wanted.value, -1) = '*'
    AND substr(name, 1, length(wanted.value) - 1) = substr(wanted.value, 1, length(wanted.value) - 1)))"""
_LABEL = "id IN (SELECT run FROM labels WHERE labels.tenant = ? AND key = ? AND value = ?)"
# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_BATCHES_FROM = f"SELECT {BATCH_COLUMNS} FROM batches WHERE id > ? AND id <= ? ORDER BY id"
_BATCHES_OF_PRODUCER = f"""SELECT {BATCH_COLUMNS} FROM batches
    WHERE id BETWEEN ? AND ? AND producer_id = ? AND producer_epoch = ? AND first_producer_sequence <= ?
    ORDER BY id DESC"""
_SILENT = """SELECT tenant, run_id FROM runs
    WHERE timeout_ns IS NOT NULL AND state < 10 AND max(seen_ns, ?) + timeout_ns < ? ORDER BY id"""


def find_log(connection: apsw.Connection, key: RunKey) -> LogState:
    """Read a run and its log's state."""
    entry = load(connection, key)
    if entry is None or entry.log is None:
        raise run_not_found(key.run_id)
    return entry.log


def read_chunks(connection: apsw.Connection, key: RunKey, after: int, max_bytes: int) -> list[Chunk]:
    """Read the batches behind a sequence; raises DATA_LOSS if one is missing."""
    base = _row(connection, key) << 32
    chunks: list[Chunk] = []
    size, expected = 0, max(after, 0) + 1
    bounds = (base + min(max(after, 0), SEQUENCE_MASK), base | SEQUENCE_MASK)
    for values in connection.execute(_BATCHES_FROM, bounds):
        _, chunk = decode_batch(key, values)
        if chunk.first_sequence > expected or (chunks and chunk.first_sequence != expected):
            raise data_loss(f"events from {expected} on are missing")
        chunks.append(chunk)
        expected = chunk.last_sequence + 1
        size += len(chunk.data)
        if size >= max_bytes:
            return chunks
    if expected <= find_log(connection, key).run.last_sequence:
        raise data_loss(f"events from {expected} on are missing")
    return chunks


def find_repeated(
    connection: apsw.Connection, key: RunKey, row: int, batch: ProducerBatch, repeated: Repeated
) -> BatchReceipt:
    """Answer a batch that is stored already, or raise PRODUCER_CONFLICT if its content is another one."""
    wanted = dict(enumerate(batch.events, repeated.first_producer_sequence))
    if _row(connection, key) != row:
        raise run_not_found(key.run_id)
    stored = dict(_stored_events(connection, key, row << 32, batch, repeated))
    for number, event in wanted.items():
        if number not in stored:
            raise data_loss(f"the event with producer sequence {number} is missing")
        if not same_content(stored[number], event):
            raise producer_conflict(number)
    first, last = stored[repeated.first_producer_sequence], stored[repeated.last_producer_sequence]
    return repeated_receipt(repeated, first.sequence, last.sequence)


def _stored_events(
    connection: apsw.Connection, key: RunKey, base: int, batch: ProducerBatch, repeated: Repeated
) -> Iterator[tuple[int, Event]]:
    bounds = (base, base | SEQUENCE_MASK)
    producer = (batch.producer_id, batch.producer_epoch, repeated.last_producer_sequence)
    for values in connection.execute(_BATCHES_OF_PRODUCER, (*bounds, *producer)):
        found, chunk = decode_batch(key, values)
        yield from enumerate(EventBatch.FromString(chunk.data).events, found.first_sequence)
        if found.first_sequence <= repeated.first_producer_sequence:
            return


def list_runs(connection: apsw.Connection, query: RunQuery, before: int | None) -> RunPage:
    """List runs, the newest first."""
    where, values = _conditions(query)
    sql = f"SELECT {RUN_COLUMNS} FROM runs WHERE {where} AND id < ? ORDER BY id DESC LIMIT ?"
    position = _INT64_MAX if before is None else before
    rows: list[Any] = connection.execute(sql, (*values, position, query.limit + 1)).fetchall()
    runs = [decode_run(row)[2].run for row in rows[: query.limit]]
    return RunPage(runs, rows[query.limit - 1][0] if len(rows) > query.limit else None)


def list_changes(connection: apsw.Connection, query: RunQuery, after: int) -> tuple[Sequence[RunChange], int]:
    """List runs by their last change of state, the oldest first."""
    where, values = _conditions(query)
    sql = f"SELECT change, {RUN_COLUMNS} FROM runs WHERE {where} AND change > ? ORDER BY change LIMIT ?"
    rows: list[Any] = connection.execute(sql, (*values, after, query.limit)).fetchall()
    changes = [RunChange(row[0], decode_run(row[1:])[2].run) for row in rows]
    if len(changes) == query.limit:
        return changes, changes[-1].position
    newest = connection.execute("SELECT max(change) FROM runs WHERE tenant = ?", (query.tenant,)).get or 0
    return changes, max(after, newest)


def list_silent(connection: apsw.Connection, silent_since_ns: int, now_ns: int) -> list[RunKey]:
    """List the open runs whose producer is silent for too long."""
    return [RunKey(*row) for row in connection.execute(_SILENT, (silent_since_ns, now_ns))]


def next_doomed(connection: apsw.Connection) -> int | None:
    """Tell a deleted run that has batches left; None: there is none."""
    row: int | None = connection.execute("SELECT run FROM doomed LIMIT 1").get
    return row


def _row(connection: apsw.Connection, key: RunKey) -> int:
    row: int | None = connection.execute("SELECT id FROM runs WHERE tenant = ? AND run_id = ?", key).get
    if row is None:
        raise run_not_found(key.run_id)
    return row


def _conditions(query: RunQuery) -> tuple[str, list[Any]]:
    wanted = query.filter
    clauses, values = ["runs.tenant = ?"], [query.tenant]
    for clause, value in _scalar_conditions(wanted):
        clauses.append(clause)
        values.append(value)
    for key, value in wanted.labels.items():
        clauses.append(_LABEL)
        values += (query.tenant, key, value)
    return " AND ".join(clauses), values


def _scalar_conditions(wanted: RunFilter) -> Iterator[tuple[str, Any]]:
    if wanted.kinds:
        yield "kind IN (SELECT value FROM json_each(?))", json.dumps(list(wanted.kinds))
    if wanted.states:
        yield "state IN (SELECT value FROM json_each(?))", json.dumps(list(wanted.states))
    if wanted.names:
        yield _NAMES, json.dumps(list(wanted.names))
    if wanted.conversation_id:
        yield "conversation_id = ?", wanted.conversation_id
    if wanted.parent_run_id:
        yield "parent_run_id = ?", wanted.parent_run_id
    if wanted.HasField("created_after"):
        yield "create_ns >= ?", _nanoseconds(wanted.created_after)
    if wanted.HasField("created_before"):
        yield "create_ns < ?", _nanoseconds(wanted.created_before)


def _nanoseconds(time: Timestamp) -> int:
    return max(-_INT64_MAX, min(time.seconds * 1_000_000_000 + time.nanos, _INT64_MAX))
