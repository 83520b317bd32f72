"""What is asked of the file, each with a connection that is in a transaction."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import apsw

from lavant.server.errors import data_loss, run_not_found
from lavant.server.model import RunKey
from lavant.server.store import listing
from lavant.server.store.appending import LogState, Repeated, answer_repeated
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import RunChange, RunPage, RunQuery
from lavant.server.store.sqlite.logs import load
from lavant.server.store.sqlite.rows import BATCH_COLUMNS, RUN_COLUMNS, SEQUENCE_MASK, decode_batch, decode_run
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, EventBatch, ProducerBatch

# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_BATCHES_FROM = f"SELECT {BATCH_COLUMNS} FROM batches WHERE id > ? AND id <= ? ORDER BY id"
_BATCHES_OF_PRODUCER = f"""SELECT {BATCH_COLUMNS} FROM batches
    WHERE id BETWEEN ? AND ? AND producer_id = ? AND producer_epoch = ? AND first_producer_sequence <= ?
    ORDER BY id DESC"""
_OLDER = """SELECT id FROM runs INDEXED BY runs_by_age
    WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT 1 OFFSET ?"""
_CHANGED = """SELECT change FROM runs INDEXED BY runs_by_change
    WHERE tenant = ? AND change > ? ORDER BY change LIMIT 1 OFFSET ?"""
_NEWEST_CHANGE = "SELECT max(change) FROM runs WHERE tenant = ?"


def find_log(connection: apsw.Connection, key: RunKey) -> LogState:
    """Read a run and its log's state."""
    entry = load(connection, key)
    if entry is None or entry.log is None:
        raise run_not_found(key.run_id)
    return entry.log


def read_chunks(
    connection: apsw.Connection, key: RunKey, after: int, max_bytes: int, created_ns: int | None
) -> list[Chunk]:
    """Read the batches behind a sequence; raises DATA_LOSS if one is missing."""
    base = _row(connection, key, created_ns) << 32
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
    if _row(connection, key) != row:
        raise run_not_found(key.run_id)
    stored = dict(_stored_events(connection, key, row << 32, batch, repeated))
    return answer_repeated(batch, repeated, stored)


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
    """List runs, the newest first: what fits in a page, of the next so many runs."""
    position = listing.INT64_MAX if before is None else before
    rest: int | None = connection.execute(_OLDER, (query.tenant, position, listing.LOOKED_AT)).get
    where, values = listing.conditions(query)
    sql = f"""SELECT id, {RUN_COLUMNS} FROM runs INDEXED BY runs_by_age
        WHERE {where} AND id < ? AND id > ? ORDER BY id DESC"""
    taken, cut = _page(connection, sql, (*values, position, rest or 0), query.limit)
    runs = [change.run for change in taken]
    if cut:
        return RunPage(runs, taken[-1].position)
    return RunPage(runs, None if rest is None else rest + 1)


def list_changes(
    connection: apsw.Connection, query: RunQuery, after: int, until: int | None
) -> tuple[Sequence[RunChange], int]:
    """List runs by their last change of state, the oldest first: what fits in a page, of the next so many."""
    reached: int | None = connection.execute(_CHANGED, (query.tenant, after, listing.LOOKED_AT - 1)).get
    if until is not None:
        reached = until if reached is None else min(reached, until)
    elif reached is None:
        reached = max(after, newest_change(connection, query.tenant))
    where, values = listing.conditions(query)
    sql = f"""SELECT change, {RUN_COLUMNS} FROM runs INDEXED BY runs_by_change
        WHERE {where} AND change > ? AND change <= ? ORDER BY change"""
    changes, cut = _page(connection, sql, (*values, after, reached), query.limit)
    return changes, changes[-1].position if cut else reached


def newest_change(connection: apsw.Connection, tenant: str) -> int:
    """Tell where a tenant's feed of changes ends."""
    newest: int | None = connection.execute(_NEWEST_CHANGE, (tenant,)).get
    return newest or 0


def list_silent(connection: apsw.Connection, silent_since_ns: int, now_ns: int) -> list[RunKey]:
    """List the open runs whose producer is silent for too long."""
    return [RunKey(*row) for row in connection.execute(listing.SILENT, (silent_since_ns, now_ns))]


def next_doomed(connection: apsw.Connection) -> int | None:
    """Tell a deleted run that has batches left; None: there is none."""
    row: int | None = connection.execute("SELECT run FROM doomed LIMIT 1").get
    return row


def _row(connection: apsw.Connection, key: RunKey, created_ns: int | None = None) -> int:
    found: Any = connection.execute("SELECT id, create_ns FROM runs WHERE tenant = ? AND run_id = ?", key).fetchone()
    if found is None or created_ns not in (None, found[1]):
        raise run_not_found(key.run_id)
    return int(found[0])


def _page(connection: apsw.Connection, sql: str, values: Sequence[Any], limit: int) -> tuple[list[RunChange], bool]:
    """Take a page of rows; tells whether it left some."""
    with closing(connection.execute(sql, values)) as rows:  # an open one would keep the transaction's view
        return listing.take(((position, decode_run(columns)[2].run) for position, *columns in rows), limit)
