"""Verification of a whole file: is everything in it what was written to it?"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from lavant.server.errors import ServiceError, data_loss
from lavant.server.model import RunKey
from lavant.server.store.appending import Producer
from lavant.server.store.chunk import Chunk
from lavant.server.store.runs import producer_seen_ns, timeout_ns
from lavant.server.store.sqlite.rows import (
    BATCH_COLUMNS,
    RUN_COLUMNS,
    SEQUENCE_MASK,
    decode_batch,
    decode_run,
)
from lavant.server.store.sqlite.schema import StoreDamaged, StoreUnusable, read_meta
from lavant.v1.run_pb2 import Run

_COPIES = "kind, name, state, conversation_id, parent_run_id, create_ns, seen_ns, timeout_ns"
# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_RUNS = f"SELECT {RUN_COLUMNS}, created, {_COPIES} FROM runs ORDER BY id"
_BATCHES = f"SELECT {BATCH_COLUMNS} FROM batches WHERE id BETWEEN ? AND ? ORDER BY id"
_LABEL = "SELECT count(*) FROM labels WHERE tenant = ? AND key = ? AND value = ? AND created = ? AND run = ?"
_UNPURGED = "SELECT count(*) FROM batches WHERE id >> 32 IN (SELECT run FROM unpurged)"


class Contents(NamedTuple):
    """Counts of what a file holds; `size` is the size of the file, in bytes."""

    runs: int
    events: int
    size: int


def verify(path: Path) -> Contents:
    """Read all of a file that no process writes to. Raises StoreDamaged if anything is not what was written.

    Takes time in proportion to the file's size, and little memory. Damage is missed only in unused space.
    """
    with readable(path), closing(_open_still(path)) as connection, connection:
        connection.pragma("cell_size_check", True)
        found = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if found != [("ok",)]:
            raise StoreDamaged(path, str(found[0][0]))
        read_meta(connection, path)
        runs, events = _check_rows(connection)
    return Contents(runs, events, path.stat().st_size)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Translate errors of reading a file into StoreDamaged, or StoreUnusable where the file is not to blame."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError) as error:
        raise StoreDamaged(path, str(error)) from error
    except ServiceError as error:
        raise StoreDamaged(path, error.message) from error
    except apsw.Error as error:
        raise StoreUnusable(f"{path} cannot be read: {error}") from error


def _open_still(path: Path) -> apsw.Connection:
    """Open a file without locking it or creating files beside it: its folder may be read-only."""
    return apsw.Connection(f"{path.as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def _check_rows(connection: apsw.Connection) -> tuple[int, int]:
    runs = events = batches = labels = last_created = 0
    for values in connection.execute(_RUNS):
        row, key, log = decode_run(values[:6])
        created, *copies = values[6:]
        is_in_order = created > last_created and created >= log.run.create_time.ToNanoseconds()
        last_created = created
        if tuple(copies) != _copies(log.run) or not is_in_order:
            raise data_loss(f"run {key.run_id} is listed with another state than its log has")
        runs += 1
        events += log.run.last_sequence
        batches += sum(1 for _ in read_log(connection, row, key, log.run.last_sequence))
        labels += _check_labels(connection, (created, row), key, log.run)
    if connection.execute("SELECT count(*) FROM labels").get != labels:
        raise data_loss("there are labels of no run")
    if connection.execute("SELECT count(*) FROM batches").get != batches + connection.execute(_UNPURGED).get:
        raise data_loss("there are events of no run")
    return runs, events


def _copies(run: Run) -> Sequence[Any]:
    """Return the values that a run's columns repeat from its record, in the order of _COPIES."""
    names = (run.kind, run.name, run.state, run.conversation_id, run.parent_run_id)
    return *names, run.create_time.ToNanoseconds(), producer_seen_ns(run), timeout_ns(run)


def read_log(connection: apsw.Connection, row: int, key: RunKey, head: int) -> Iterator[tuple[Producer, Chunk]]:
    """Yield a run's batches in order, up to its head. Raises DATA_LOSS if one is missing or damaged."""
    last = 0
    for values in connection.execute(_BATCHES, (row << 32, row << 32 | SEQUENCE_MASK)):
        producer, chunk = decode_batch(key, values)
        if chunk.first_sequence != last + 1:
            break
        yield producer, chunk
        last = chunk.last_sequence
    if last != head:
        raise data_loss(f"run {key.run_id} lacks events from {last + 1} on")


def _check_labels(connection: apsw.Connection, place: tuple[int, int], key: RunKey, run: Run) -> int:
    for name, value in run.labels.items():
        if not connection.execute(_LABEL, (key.tenant, name, value, *place)).get:
            raise data_loss(f"run {key.run_id} cannot be found by its label {name}")
    return len(run.labels)
