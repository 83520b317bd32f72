"""Queries of the file: each runs in a thread, in one short transaction."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from lavant.server.errors import data_loss, run_not_found
from lavant.server.model import RunKey
from lavant.server.store import filters, listing
from lavant.server.store.appending import LogState, Repeated, answer_repeated
from lavant.server.store.chunk import PREFIX, Chunk, decoded_size
from lavant.server.store.port import ListedRun, RunPage, RunQuery
from lavant.server.store.reads import ReadThreads
from lavant.server.store.restrictions import Restriction
from lavant.server.store.sqlite.failures import explained
from lavant.server.store.sqlite.rows import (
    BATCH_COLUMNS,
    RUN_COLUMNS,
    SEQUENCE_MASK,
    decode_batch,
    decode_run,
    decode_snapshot,
)
from lavant.server.store.sqlite.schema import connect
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt, EventBatch, ProducerBatch
from lavant.v1.run_pb2 import Run

# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_RUN = f"SELECT {RUN_COLUMNS} FROM runs WHERE tenant = ? AND run_id = ?"
_BATCHES_FROM = f"SELECT {BATCH_COLUMNS} FROM batches WHERE id > ? AND id <= ? ORDER BY id"
_SIZES = f"""SELECT substr(events, 1, {PREFIX}), length(events) FROM batches
    WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"""
_BATCHES_OF_PRODUCER = f"""SELECT {BATCH_COLUMNS} FROM batches
    WHERE id BETWEEN ? AND ? AND producer_id = ? AND producer_epoch = ? AND first_producer_sequence <= ?
    ORDER BY id DESC"""
_CHANGED = """SELECT change FROM runs INDEXED BY runs_by_change
    WHERE tenant = ? AND change > ? ORDER BY change LIMIT 1 OFFSET ?"""
_NEWEST_CHANGE = """SELECT max(coalesce((SELECT max(change) FROM runs WHERE tenant = ?1), 0),
    coalesce((SELECT max(change) FROM deletions WHERE tenant = ?1), 0))"""
_SMALL_EVENTS = 1_000
_SMALL_BATCHES = 16
_SMALL_BYTES = 64 << 10
_DELETED = "SELECT run_id FROM deletions WHERE tenant = ? AND change > ? AND change <= ? ORDER BY change"


def find_log(connection: apsw.Connection, key: RunKey) -> tuple[int, LogState] | None:
    """Read a run's row number and log; None if there is no such run. Raises DATA_LOSS if it is damaged."""
    with explained(connection):
        values = connection.execute(_RUN, key).fetchone()
    if values is None:
        return None
    row, _, log = decode_run(values)
    return row, log


def find_run(connection: apsw.Connection, key: RunKey) -> Run | None:
    """Read a run; None if there is no such run. Raises DATA_LOSS if it is damaged."""
    with explained(connection):
        values = connection.execute(_RUN, key).fetchone()
    return None if values is None else decode_snapshot(*values)


def read_chunks(
    connection: apsw.Connection, key: RunKey, after: int, max_bytes: int, created_ns: int | None
) -> list[Chunk]:
    """Read the batches after a sequence. Raises DATA_LOSS if one is missing."""
    return _chunks(connection, key, _log_after(connection, key, after, created_ns), max_bytes)


def read_small(
    connection: apsw.Connection, key: RunKey, after: int, max_bytes: int, created_ns: int | None
) -> list[Chunk] | None:
    """Read the batches after a sequence as `read_chunks` does; None if they are too many to read without a thread."""
    log = _log_after(connection, key, after, created_ns)
    if log.last_sequence - log.first_sequence >= _SMALL_EVENTS:
        return None
    # The length of a blob is in the row's header, and its prefix near: its other pages are not read. What counts is the
    # size when decoded: text that repeats is stored in a hundredth of it.
    sizes = [decoded_size(*stored) for stored in connection.execute(_SIZES, (*log.bounds, _SMALL_BATCHES + 1))]
    if len(sizes) > _SMALL_BATCHES or sum(sizes) > _SMALL_BYTES:
        return None
    return _chunks(connection, key, log, max_bytes)


class _Log(NamedTuple):
    """Part of a run's log after a sequence: the bounds of its batches, and the sequences of its events."""

    bounds: tuple[int, int]
    first_sequence: int
    last_sequence: int


def _log_after(connection: apsw.Connection, key: RunKey, after: int, created_ns: int | None) -> _Log:
    values: Any = connection.execute(_RUN, key).fetchone()
    if values is None:
        raise run_not_found(key.run_id)
    run = decode_snapshot(*values)
    if created_ns not in (None, run.create_time.ToNanoseconds()):
        raise run_not_found(key.run_id)
    base, after = values[0] << 32, max(after, 0)
    return _Log((base + min(after, SEQUENCE_MASK), base | SEQUENCE_MASK), after + 1, run.last_sequence)


def _chunks(connection: apsw.Connection, key: RunKey, log: _Log, max_bytes: int) -> list[Chunk]:
    chunks: list[Chunk] = []
    size, expected = 0, log.first_sequence
    for values in connection.execute(_BATCHES_FROM, log.bounds):
        _, chunk = decode_batch(key, values)
        if chunk.first_sequence > expected or (chunks and chunk.first_sequence != expected):
            raise data_loss(f"events from {expected} on are missing")
        chunks.append(chunk)
        expected = chunk.last_sequence + 1
        size += len(chunk.data)
        if size >= max_bytes:
            return chunks
    if expected <= log.last_sequence:
        raise data_loss(f"events from {expected} on are missing")
    return chunks


def find_repeated(
    connection: apsw.Connection, key: RunKey, row: int, batch: ProducerBatch, repeated: Repeated
) -> BatchReceipt:
    """Return the first receipt of a batch that is already stored, or raise PRODUCER_CONFLICT if its content differs."""
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
    """List runs, the newest first, by the rules of `listing`."""
    return listing.list_runs(connection, query, before, RUN_COLUMNS, decode_snapshot)


def list_changes(
    connection: apsw.Connection, query: RunQuery, after: int, until: int | None
) -> tuple[Sequence[ListedRun], int]:
    """List runs by their last change of state, the oldest first: a page of the next `LOOKED_AT` runs."""
    reached: int | None = connection.execute(_CHANGED, (query.tenant, after, listing.LOOKED_AT - 1)).get
    if until is not None:
        reached = until if reached is None else min(reached, until)
    elif reached is None:
        reached = max(after, newest_change(connection, query.tenant))
    where, values = filters.conditions(query)
    sql = f"""SELECT change, {RUN_COLUMNS} FROM runs INDEXED BY runs_by_change
        WHERE {where} AND change > :after AND change <= :until ORDER BY change"""
    with closing(connection.execute(sql, values | {"after": after, "until": reached})) as rows:
        runs = ((position, decode_snapshot(*columns)) for position, *columns in rows)
        changes, cut = listing.take(runs, query.limit)
    return changes, changes[-1].position if cut else reached


def newest_change(connection: apsw.Connection, tenant: str) -> int:
    """Return the last position of a tenant's feed of changes."""
    newest: int = connection.execute(_NEWEST_CHANGE, (tenant,)).get
    return newest


def list_deletions(
    connection: apsw.Connection, tenant: str, after: int, until: int, within: Restriction | None
) -> list[str]:
    """List the IDs of runs that were deleted after a position and up to another, of those that `within` allows."""
    rows: Any = connection.execute(_DELETED, (tenant, after, until))
    # Deletions of an earlier version have the ID alone.
    runs = (Run.FromString(run) if isinstance(run, bytes) else Run(run_id=run) for (run,) in rows)
    return [run.run_id for run in runs if within is None or within.allows(run)]


def list_silent(connection: apsw.Connection, silent_since_ns: int, now_ns: int) -> list[RunKey]:
    """List the open runs whose producers have been silent for too long."""
    return [RunKey(*row) for row in connection.execute(listing.SILENT, (silent_since_ns, now_ns))]


def next_unpurged(connection: apsw.Connection) -> int | None:
    """Return the row number of a deleted run that has batches left; None if there is none."""
    row: int | None = connection.execute("SELECT run FROM unpurged LIMIT 1").get
    return row


def _row(connection: apsw.Connection, key: RunKey) -> int:
    row: int | None = connection.execute("SELECT id FROM runs WHERE tenant = ? AND run_id = ?", key).get
    if row is None:
        raise run_not_found(key.run_id)
    return row


def open_threads(path: Path, quick: int, *, slow: int = 0, name: str, max_waiting: int | None = None) -> ReadThreads:
    """Open the connections of all threads now: later there may be no file descriptor left.

    Queries raise DATA_LOSS if they read damaged data.
    """
    opened: list[apsw.Connection] = []
    try:
        opened.extend(connect(path, read_only=True) for _ in range(quick + slow))
    except BaseException:
        for connection in opened:
            connection.close()
        raise
    return ReadThreads(opened[:quick], slow=opened[quick:], name=name, max_waiting=max_waiting, guard=explained)
