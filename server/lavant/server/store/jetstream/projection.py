"""All runs as they stand, in a database of this process's own, so that they can be listed."""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import apsw

from lavant.server.model import RunKey
from lavant.server.store import listing
from lavant.server.store.jetstream.location import PARTITIONS
from lavant.server.store.jetstream.records import Record
from lavant.server.store.port import RunChange, RunPage, RunQuery
from lavant.server.store.runs import heard_ns, timeout_ns
from lavant.v1.run_pb2 import Run

_BITS = 48  # of a stream's sequence within a position
_MASK = (1 << _BITS) - 1
_TABLES = """
CREATE TABLE runs(
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    run_id TEXT NOT NULL,
    created INTEGER NOT NULL,    -- Stamps.order
    partition INTEGER NOT NULL,
    change INTEGER NOT NULL,     -- the message of the last change of state
    stamp INTEGER NOT NULL,      -- Stamps.stamp of that message
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    state INTEGER NOT NULL,
    conversation_id TEXT NOT NULL,
    parent_run_id TEXT NOT NULL,
    create_ns INTEGER NOT NULL,
    seen_ns INTEGER NOT NULL,
    timeout_ns INTEGER,
    run BLOB NOT NULL,           -- lavant.v1.Run
    UNIQUE(tenant, run_id)
);
CREATE INDEX runs_by_age ON runs(tenant, created);
CREATE INDEX runs_by_change ON runs(tenant, partition, change);
CREATE INDEX runs_to_watch ON runs(timeout_ns) WHERE timeout_ns IS NOT NULL AND state < 10;
CREATE TABLE labels(
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    PRIMARY KEY(tenant, key, value, run)
) WITHOUT ROWID;
CREATE INDEX labels_of_run ON labels(run);
"""
_DELETE = "DELETE FROM runs WHERE tenant = ? AND run_id = ?"
_INSERT = f"INSERT INTO runs VALUES({', '.join('?' * 16)})"
_INSERT_LABEL = "INSERT INTO labels VALUES(?, ?, ?, ?)"
_HEARD = "UPDATE runs SET seen_ns = max(seen_ns, ?) WHERE tenant = ? AND run_id = ?"
# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_NEWEST_CHANGES = "SELECT partition, max(change) FROM runs WHERE tenant = ? GROUP BY partition"
_OLDER = """SELECT created FROM runs INDEXED BY runs_by_age
    WHERE tenant = ? AND created < ? ORDER BY created DESC LIMIT 1 OFFSET ?"""

_Answer = TypeVar("_Answer")


class Projection:
    """The last state of each run, by its last change of state; it is lost with the process and read anew.

    A place in the feed of changes is one in each partition's stream. `position` packs them into one number,
    which means the same on every replica and grows with each of them.
    """

    def __init__(self) -> None:
        self._connection = apsw.Connection("")  # a file without a name, which goes with the connection
        self._connection.execute("PRAGMA foreign_keys = ON; PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;")
        self._connection.execute(_TABLES)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lavant-lists")

    async def apply(self, partition: int, records: Sequence[Record]) -> None:
        """Take in what was read of a partition's stream, in its order."""
        await self._ask(lambda: self._apply(partition, records))

    async def forget(self, partition: int) -> None:
        """Begin anew with a partition."""
        await self._ask(lambda: self._connection.execute("DELETE FROM runs WHERE partition = ?", (partition,)))

    async def heard(self, key: RunKey, at_ns: int) -> None:
        """Note that a producer was heard from, which no change of state tells."""
        await self._ask(lambda: self._connection.execute(_HEARD, (at_ns, *key)))

    async def list_runs(self, query: RunQuery, before: int | None) -> RunPage:
        """List runs, the newest first: what fits in a page, of the next so many runs."""
        return await self._ask(lambda: self._list_runs(query, before))

    async def list_changes(
        self, query: RunQuery, after: int, until: int | None = None
    ) -> tuple[Sequence[RunChange], int]:
        """List runs by their last change of state, the oldest first: what fits in a page, of the next so many."""
        return await self._ask(lambda: self._list_changes(query, after, until))

    async def last_change(self, tenant: str, after: int) -> int:
        """Tell where a tenant's feed of changes ends, in no partition before a position."""
        return await self._ask(lambda: self._last_change(tenant, after))

    async def list_silent(self, silent_since_ns: int, now_ns: int) -> list[RunKey]:
        """List the open runs whose producers may be silent for too long."""

        def ask() -> list[RunKey]:
            return [RunKey(*row) for row in self._connection.execute(listing.SILENT, (silent_since_ns, now_ns))]

        return await self._ask(ask)

    async def close(self) -> None:
        """Finish what is under way, and drop everything."""
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    async def _ask(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _apply(self, partition: int, records: Iterable[Record]) -> None:
        with self._connection:
            for record in records:
                self._connection.execute(_DELETE, record.key)
                if not record.deleted:
                    self._insert(partition, record)

    def _insert(self, partition: int, record: Record) -> None:
        run = record.run
        place = (*record.key, record.stamps.order, partition, record.sequence, record.stamps.stamp)
        columns = (run.kind, run.name, run.state, run.conversation_id, run.parent_run_id)
        times = (record.create_ns, heard_ns(run), timeout_ns(run))
        self._connection.execute(_INSERT, (None, *place, *columns, *times, run.SerializeToString()))
        row = self._connection.last_insert_rowid()
        labels = [(record.key.tenant, name, value, row) for name, value in run.labels.items()]
        self._connection.executemany(_INSERT_LABEL, labels)

    def _list_runs(self, query: RunQuery, before: int | None) -> RunPage:
        position = listing.INT64_MAX if before is None else before
        rest = self._connection.execute(_OLDER, (query.tenant, position, listing.LOOKED_AT)).get
        where, values = listing.conditions(query)
        sql = f"""SELECT created, run FROM runs INDEXED BY runs_by_age
            WHERE {where} AND created < ? AND created > ? ORDER BY created DESC, run_id"""
        rows: Any = self._connection.execute(sql, (*values, position, rest or 0))
        taken, cut = listing.take(((created, Run.FromString(run)) for created, run in rows), query.limit)
        rows.close()
        runs = [change.run for change in taken]
        if cut:
            return RunPage(runs, taken[-1].position)
        return RunPage(runs, None if rest is None else rest + 1)

    def _list_changes(self, query: RunQuery, after: int, until: int | None) -> tuple[Sequence[RunChange], int]:
        reached = _unpacked(after)
        ends = [_MASK] * PARTITIONS if until is None else _unpacked(until)
        spans = enumerate(zip(reached, ends, strict=True))
        changed = heapq.merge(*(self._changed(query, partition, *span) for partition, span in spans))
        left = listing.LOOKED_AT

        def wanted() -> Iterator[tuple[int, Run]]:
            nonlocal left
            for _, partition, change, run in islice(changed, left):
                left -= 1
                reached[partition] = change
                if run is not None:
                    yield packed(reached), Run.FromString(run)

        taken, cut = listing.take(wanted(), query.limit)
        if cut:
            return taken, taken[-1].position
        return taken, packed(reached) if until is None or not left else _latest(packed(reached), until)

    def _last_change(self, tenant: str, after: int) -> int:
        newest: Any = self._connection.execute(_NEWEST_CHANGES, (tenant,))
        changes = dict(newest)
        return _latest(after, packed([changes.get(partition, 0) for partition in range(PARTITIONS)]))

    def _changed(
        self, query: RunQuery, partition: int, after: int, until: int
    ) -> Iterator[tuple[int, int, int, bytes | None]]:
        """A partition's changes behind one and up to another, by their stamps, with those runs that are wanted.

        A message never sorts before an earlier one of its stream, whatever the clock was that stamped it.
        """
        where, values = listing.conditions(query)
        sql = f"""SELECT stamp, change, CASE WHEN {where} THEN run END FROM runs INDEXED BY runs_by_change
            WHERE runs.tenant = ? AND partition = ? AND change > ? AND change <= ? ORDER BY change LIMIT ?"""
        bounds = (after, until, listing.LOOKED_AT)
        rows: Any = self._connection.execute(sql, (*values, query.tenant, partition, *bounds))
        newest = 0
        for stamp, change, run in rows:
            newest = max(newest, stamp)
            yield newest, partition, change, run


def packed(sequences: Sequence[int]) -> int:
    """A place in the feed from a sequence of each partition's stream."""
    return sum(sequence << (_BITS * partition) for partition, sequence in enumerate(sequences))


def _unpacked(position: int) -> list[int]:
    return [position >> (_BITS * partition) & _MASK for partition in range(PARTITIONS)]


def _latest(one: int, other: int) -> int:
    """The place that no change lies behind which lies behind neither of two."""
    return packed([*map(max, _unpacked(one), _unpacked(other))])
