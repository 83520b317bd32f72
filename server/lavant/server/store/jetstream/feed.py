"""Feed of changes of runs' states, from the streams into a local database that lists are read from."""

import asyncio
import heapq
import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import apsw
from nats.aio.msg import Msg

from lavant.server.errors import ServiceError, unavailable
from lavant.server.model import RunKey
from lavant.server.store import filters, listing
from lavant.server.store.jetstream.changes import StampClock
from lavant.server.store.jetstream.connection import Connection, Unanswered, patiently
from lavant.server.store.jetstream.location import PARTITIONS, Location
from lavant.server.store.jetstream.messages import Message, Messages
from lavant.server.store.jetstream.records import Record
from lavant.server.store.port import DELETIONS_KEPT, ListedRun, RunPage, RunQuery, Watch
from lavant.server.store.reads import ReadThreads, open_temporary
from lavant.server.store.restrictions import Restriction, restricted_settings
from lavant.server.store.runs import producer_seen_ns, timeout_ns
from lavant.server.store.stored_bytes import SharedStoredBytes
from lavant.server.store.watchers import FeedWatchers
from lavant.v1.run_pb2 import Run

POLL_INTERVAL = 2.0  # seconds
CUT_OFF_LIMIT = 6 * 3600.0  # seconds without reading the feed, after which deletions may have been missed
_READ_BYTES = 1 << 20
_LAG = 0.005  # seconds before the next request to a server that lags
_LAG_LIMIT = 2.0
_SEQUENCE = struct.Struct("<Q")

logger = logging.getLogger(__name__)


class _Partition:
    """Progress in the stream of one partition.

    `reached` is the last sequence in the projection, `known` the last one that is known to exist. Lists must include
    changes up to `own`. `announced` holds this replica's own changes, of which watchers were notified.
    """

    def __init__(self) -> None:
        self.reached = self.known = self.own = 0
        self.announced: set[int] = set()
        self.news = asyncio.Event()
        self.read_at = 0.0


class Feed:
    """Follower of all changes: it updates the projection, and notifies the watchers of a tenant's runs.

    Lists hold at least the changes that this replica has stored. Those of other replicas arrive within
    milliseconds, or with the next poll if a notification is lost.
    """

    def __init__(self, connection: Connection, messages: Messages, location: Location) -> None:
        self.clock = StampClock()
        self.projection = Projection()
        self.stored_bytes = SharedStoredBytes()
        self._connection = connection
        self._messages = messages
        self._location = location
        self._watchers = FeedWatchers()
        self._partitions = [_Partition() for _ in range(PARTITIONS)]
        self._progress = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Read the snapshots of all runs, then follow changes; takes time in proportion to the number of runs."""
        await self._connection.listen(self._location.feed_notification("*"), self._on_notification)
        await asyncio.gather(*(patiently(partial(self._catch_up, partition)) for partition in range(PARTITIONS)))
        self._tasks = [asyncio.ensure_future(self._follow(partition)) for partition in range(PARTITIONS)]

    def watch(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change of a tenant's runs."""
        return self._watchers.add(tenant, callback)

    def watch_all(self, callback: Callable[[str], None]) -> Watch:
        """Call back with the tenant after each change of any tenant's runs."""
        return self._watchers.add_to_all(callback)

    def has_listed(self, partition: int, sequence: int) -> bool:
        """Return whether a change is in the list already."""
        return sequence <= self._partitions[partition].reached

    def stored(self, partition: int, sequence: int, tenant: str) -> None:
        """Record a change that this replica has stored, and notify the tenant's watchers."""
        state = self._partitions[partition]
        if sequence > state.reached:
            state.own = state.known = max(state.known, sequence)
            state.announced.add(sequence)
            state.news.set()
        self._watchers.announce(tenant)

    async def notify(self, partition: int, sequence: int) -> None:
        """Notify the other replicas of a stored change."""
        await self._connection.notify(self._location.feed_notification(partition), _SEQUENCE.pack(sequence))

    def poll(self) -> None:
        """Read all partitions now, since notifications may have been lost."""
        for state in self._partitions:
            state.news.set()

    async def caught_up(self) -> None:
        """Wait until the projection holds what this replica has stored; raises UNAVAILABLE."""
        try:
            async with asyncio.timeout(_LAG_LIMIT), self._progress:
                await self._progress.wait_for(lambda: all(state.reached >= state.own for state in self._partitions))
        except TimeoutError:
            raise unavailable("the store's servers lag behind") from None

    async def close(self) -> None:
        """Stop following changes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.projection.close()

    async def _on_notification(self, message: Msg) -> None:
        partition = int(message.subject.rpartition(".")[2])
        state = self._partitions[partition]
        state.known = max(state.known, _SEQUENCE.unpack(message.data)[0])
        state.news.set()

    async def _follow(self, partition: int) -> None:
        state = self._partitions[partition]
        while True:
            try:
                async with asyncio.timeout(POLL_INTERVAL):
                    await state.news.wait()
            except TimeoutError:
                pass
            state.news.clear()
            try:
                await self._catch_up(partition)
            except Unanswered:
                logger.debug("the feed of partition %d cannot be read", partition, exc_info=True)
            except Exception:
                logger.exception("the feed of partition %d cannot be read", partition)

    async def _catch_up(self, partition: int) -> None:
        """Read a partition until nothing is left and everything that is known to exist was read."""
        loop = asyncio.get_running_loop()
        state = self._partitions[partition]
        if state.reached and loop.time() - state.read_at > CUT_OFF_LIMIT:
            for tenant, size in await self.projection.forget(partition):
                self.stored_bytes.add(tenant, -size)
            state.reached = 0
        give_up_at = loop.time() + _LAG_LIMIT
        while True:
            found = await self._read(partition)
            state.read_at = loop.time()
            if found:
                await self._take_in(partition, found)
            elif state.reached >= state.known or loop.time() > give_up_at:
                return
            else:
                await asyncio.sleep(_LAG)

    async def _read(self, partition: int) -> list[Message]:
        stream, subjects = self._location.log_streams[partition], self._location.state_subjects(partition)
        return await self._messages.following(stream, subjects, self._partitions[partition].reached + 1, _READ_BYTES)

    async def _take_in(self, partition: int, found: list[Message]) -> None:
        state = self._partitions[partition]
        records = list(filter(None, map(_record, found)))
        for record in records:
            self.clock.saw(record.stamps)
            if record.deleted:  # by a replica that may have died before it purged the run's messages
                subjects = self._location.run(record.key)
                await self._messages.purge(subjects.stream, subjects.all, record.sequence)
        sizes = await self.projection.apply(partition, records)
        for record, (before, now) in zip(records, sizes, strict=True):
            self.stored_bytes.listed(record.key, before, now, deleted=record.deleted)
        state.reached = found[-1].sequence  # at once, so that no run's growth is counted after it is listed
        async with self._progress:
            self._progress.notify_all()
        for tenant in dict.fromkeys(record.key.tenant for record in records if record.sequence not in state.announced):
            self._watchers.announce(tenant)
        state.announced = {sequence for sequence in state.announced if sequence > state.reached}


def _record(message: Message) -> Record | None:
    try:
        return Record(message.sequence, message.data)
    except ServiceError:
        logger.exception("message %d of %s is left out of lists", message.sequence, message.subject)
        return None


_BITS = 48  # of a stream's sequence within a position
_MASK = (1 << _BITS) - 1
_DELETIONS_KEPT_NS = int(DELETIONS_KEPT * 1e9)
# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_TABLES = f"""
CREATE TABLE runs(
    id INTEGER PRIMARY KEY,
    {listing.COLUMNS},
    partition INTEGER NOT NULL,
    change INTEGER NOT NULL,     -- the message of the last change of state
    stamp INTEGER NOT NULL,      -- Stamps.stamp of that message
    bytes INTEGER NOT NULL,      -- of the run's events at that message
    run BLOB NOT NULL,           -- lavant.v1.Run
    UNIQUE(tenant, run_id)
);
{listing.INDEXES}
CREATE INDEX runs_by_change ON runs(tenant, partition, change);
CREATE INDEX labels_of_run ON labels(run);
CREATE TRIGGER labels_deleted AFTER DELETE ON runs BEGIN
    DELETE FROM labels WHERE run = OLD.id;
END;
CREATE TABLE deletions(
    partition INTEGER NOT NULL,
    change INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    run_id TEXT NOT NULL,
    stamp INTEGER NOT NULL,
    run BLOB NOT NULL,           -- lavant.v1.Run with the settings that restrictions depend on
    PRIMARY KEY(partition, change)
) WITHOUT ROWID;
CREATE INDEX deletions_by_tenant ON deletions(tenant, partition, change);
"""
_DELETE = "DELETE FROM runs WHERE tenant = ? AND run_id = ? RETURNING bytes"
_BYTES_BY_TENANT = "SELECT tenant, sum(bytes) FROM runs WHERE partition = ? GROUP BY tenant"
_INSERT = f"INSERT INTO runs VALUES({', '.join('?' * 17)})"
_INSERT_LABEL = "INSERT INTO labels VALUES(?, ?, ?, ?, ?)"
_INSERT_DELETION = "INSERT OR REPLACE INTO deletions VALUES(?, ?, ?, ?, ?, ?)"
_HEARD = "UPDATE runs SET seen_ns = max(seen_ns, ?) WHERE tenant = ? AND run_id = ?"

_NEWEST_CHANGES = """SELECT partition, max(change) FROM (
        SELECT partition, max(change) AS change FROM runs WHERE tenant = ?1 GROUP BY partition
        UNION ALL SELECT partition, max(change) FROM deletions WHERE tenant = ?1 GROUP BY partition
    ) GROUP BY partition"""
_DELETED = """SELECT run_id, run FROM deletions
    WHERE tenant = ? AND partition = ? AND change > ? AND change <= ? ORDER BY change"""
_FORGET_DELETIONS = """DELETE FROM deletions WHERE partition = ?1 AND stamp < ?2
    AND change IN (SELECT change FROM deletions WHERE partition = ?1 ORDER BY change LIMIT 2)"""

_QUICK, _SLOW = 2, 1  # threads that read
_LISTS_WAITING = 512  # of one tenant

_Answer = TypeVar("_Answer")


class Projection:
    """Projection of the last state of each run, by its last change of state; rebuilt when the process starts.

    A position in the feed of changes is a sequence in each partition's stream. `packed` makes them one number,
    which means the same on every replica and grows with each of them.
    """

    def __init__(self) -> None:
        self._writer, readers = open_temporary(_TABLES, _QUICK + _SLOW)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lavant-projection")
        self._readers = ReadThreads(
            readers[:_QUICK], slow=readers[_QUICK:], name="lavant-lists", max_waiting=_LISTS_WAITING
        )

    async def apply(self, partition: int, records: Sequence[Record]) -> list[tuple[int, int]]:
        """Apply records of a partition's stream, in its order; return the bytes of each run before and after."""
        return await self._write(lambda: self._apply(partition, records))

    async def forget(self, partition: int) -> list[tuple[str, int]]:
        """Remove all runs of a partition, to read them again; return the bytes of each tenant's."""

        def forget() -> list[tuple[str, int]]:
            sizes: Any = self._writer.execute(_BYTES_BY_TENANT, (partition,)).fetchall()
            for table in ("runs", "deletions"):
                self._writer.execute(f"DELETE FROM {table} WHERE partition = ?", (partition,))
            return list(sizes)

        return await self._write(forget)

    async def note_producer_seen(self, key: RunKey, at_ns: int) -> None:
        """Record when a producer last sent a batch, since batches that change no state are not in the feed."""
        await self._write(lambda: self._writer.execute(_HEARD, (at_ns, *key)))

    async def list_runs(self, query: RunQuery, before: int | None) -> RunPage:
        """List runs, the newest first, by the rules of `listing`."""
        return await self._readers.ask(
            lambda connection: listing.list_runs(connection, query, before, "runs.run", Run.FromString)
        )

    async def list_changes(
        self, query: RunQuery, after: int, until: int | None = None
    ) -> tuple[Sequence[ListedRun], int]:
        """List runs by their last change of state, the oldest first: a page of the next `LOOKED_AT` runs."""
        return await self._readers.ask(lambda connection: _list_changes(connection, query, after, until))

    async def list_deletions(self, tenant: str, after: int, until: int, within: Restriction | None = None) -> list[str]:
        """List the IDs of runs that were deleted after a position and up to another, of those that `within` allows."""
        spans = list(enumerate(zip(_unpacked(after), _unpacked(until), strict=True)))

        def ask(connection: apsw.Connection) -> list[str]:
            execute: Any = connection.execute
            return [
                run_id
                for number, span in spans
                for run_id, run in execute(_DELETED, (tenant, number, *span))
                if within is None or within.allows(Run.FromString(run))
            ]

        return await self._readers.ask(ask)

    async def list_tenants(self) -> list[str]:
        """List the tenants that have runs or deletions, in the order of their names."""
        return await self._readers.ask(listing.list_tenants)

    async def label_keys(self, tenant: str, limit: int) -> list[str]:
        """List the keys that labels of a tenant's runs have, up to a number of them."""
        return await self._readers.ask(partial(listing.label_keys, tenant=tenant, limit=limit))

    async def last_change(self, tenant: str, after: int) -> int:
        """Return the last position of a tenant's feed of changes, in no partition before that of `after`."""
        return await self._readers.ask(lambda connection: _last_change(connection, tenant, after))

    async def list_silent(self, silent_since_ns: int, now_ns: int) -> list[RunKey]:
        """List the open runs whose producers may have been silent for too long."""

        def ask(connection: apsw.Connection) -> list[RunKey]:
            return [RunKey(*row) for row in connection.execute(listing.SILENT, (silent_since_ns, now_ns))]

        return await self._readers.ask(ask)

    async def close(self) -> None:
        """Finish running queries, and discard the projection."""
        await self._readers.close()
        await asyncio.to_thread(self._thread.shutdown)
        self._writer.close()

    async def _write(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _apply(self, partition: int, records: Iterable[Record]) -> list[tuple[int, int]]:
        sizes = []
        with self._writer:
            for record in records:
                before = self._writer.execute(_DELETE, record.key).get or 0
                sizes.append((before, record.stored_bytes))
                if record.deleted:
                    self._insert_deletion(partition, record)
                else:
                    self._insert(partition, record)
        return sizes

    def _insert_deletion(self, partition: int, record: Record) -> None:
        stamp = record.stamps.stamp
        settings = restricted_settings(record.key.run_id, record.run).SerializeToString()
        self._writer.execute(_INSERT_DELETION, (partition, record.sequence, *record.key, stamp, settings))
        self._writer.execute(_FORGET_DELETIONS, (partition, stamp - _DELETIONS_KEPT_NS))

    def _insert(self, partition: int, record: Record) -> None:
        run = record.run
        created = record.stamps.order
        columns = (run.kind, run.name, run.state, run.conversation_id, run.parent_run_id)
        times = (record.create_ns, producer_seen_ns(run), timeout_ns(run))
        change = (partition, record.sequence, record.stamps.stamp, record.stored_bytes)
        values = (None, *record.key, created, *columns, *times, *change, run.SerializeToString())
        self._writer.execute(_INSERT, values)
        row = self._writer.last_insert_rowid()
        labels = [(record.key.tenant, name, value, created, row) for name, value in run.labels.items()]
        self._writer.executemany(_INSERT_LABEL, labels)


def _list_changes(
    connection: apsw.Connection, query: RunQuery, after: int, until: int | None
) -> tuple[Sequence[ListedRun], int]:
    reached = _unpacked(after)
    ends = [_MASK] * PARTITIONS if until is None else _unpacked(until)
    spans = enumerate(zip(reached, ends, strict=True))
    changed = heapq.merge(*(_changed(connection, query, partition, *span) for partition, span in spans))
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
    end = packed(reached)
    if left:  # up to the end there are no other changes, except deletions
        end = _last_change(connection, query.tenant, end) if until is None else _latest(end, until)
    return taken, end


def _last_change(connection: apsw.Connection, tenant: str, after: int) -> int:
    newest: Any = connection.execute(_NEWEST_CHANGES, (tenant,))
    changes = dict(newest)
    return _latest(after, packed([changes.get(partition, 0) for partition in range(PARTITIONS)]))


def _changed(
    connection: apsw.Connection, query: RunQuery, partition: int, after: int, until: int
) -> Iterator[tuple[int, int, int, bytes | None]]:
    """Yield a partition's changes after a sequence and up to another, by their stamps, with the matching runs.

    A message never sorts before an earlier one of its stream, whichever replica's clock stamped it.
    """
    where, values = filters.conditions(query)
    sql = f"""SELECT stamp, change, CASE WHEN {where} THEN run END FROM runs INDEXED BY runs_by_change
        WHERE runs.tenant = :tenant AND partition = :partition AND change > :after AND change <= :until
        ORDER BY change LIMIT {listing.LOOKED_AT}"""
    bounds = {"partition": partition, "after": after, "until": until}
    rows: Any = connection.execute(sql, values | bounds)
    newest = 0
    for stamp, change, run in rows:
        newest = max(newest, stamp)
        yield newest, partition, change, run


def packed(sequences: Sequence[int]) -> int:
    """Return the position in the feed for a sequence in each partition's stream."""
    return sum(sequence << (_BITS * partition) for partition, sequence in enumerate(sequences))


def _unpacked(position: int) -> list[int]:
    return [position >> (_BITS * partition) & _MASK for partition in range(PARTITIONS)]


def _latest(one: int, other: int) -> int:
    """Return the maximum of two positions, per partition."""
    return packed([*map(max, _unpacked(one), _unpacked(other))])
