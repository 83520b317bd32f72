"""Engine on NATS JetStream: the port's methods, implemented with the other modules of this package."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, unavailable
from lavant.server.metrics import StoreMetrics
from lavant.server.model import RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.jetstream.changes import Abandon, Append, Cancel, Create, Delete
from lavant.server.store.jetstream.connection import Connection, Unanswered
from lavant.server.store.jetstream.feed import Feed
from lavant.server.store.jetstream.leases import JetStreamLeases
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.jetstream.reader import Reader
from lavant.server.store.jetstream.setup import Limits, StoreUnusable, new_identity, prepare, read_identity
from lavant.server.store.jetstream.watches import Watches
from lavant.server.store.jetstream.writer import Commits, Writer
from lavant.server.store.leases import LEASE_TTL
from lavant.server.store.ownership import NOBODY, Owner
from lavant.server.store.port import Leases, ListedRun, Notice, RunPage, RunQuery, StoreIdentity, Watch
from lavant.server.store.restrictions import Restriction
from lavant.server.store.runs import producer_seen_ns
from lavant.server.store.token_keys import TokenKey
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run

_ABANDONED_AT_ONCE = 200
_NO_LIMITS = Limits()


class JetStreamEngine:
    """Engine that stores runs in streams that replicas share. See `port.Engine` for the guarantees.

    Lists may miss the latest changes of other replicas, usually for milliseconds.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        connection: Connection,
        location: Location,
        identity: StoreIdentity,
        lease_ttl: float,
        metrics: StoreMetrics,
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._identity = identity
        self._in_reach_since_ns = 0
        self._location = location
        self._messages = messages = Messages(connection)
        self._reader = Reader(messages, location)
        self._watches = Watches(connection, messages, location)
        self._feed = Feed(connection, messages, location)
        self._leases = JetStreamLeases(
            clock=clock, connection=connection, messages=messages, location=location, ttl=lease_ttl
        )
        commits = Commits(clock=clock, messages=messages, watches=self._watches, feed=self._feed, metrics=metrics)
        self._writer = Writer(clock=clock, location=location, commits=commits, reader=self._reader)
        connection.on_reconnect = self._look_around

    @classmethod
    async def open(
        cls,
        location: Location,
        clock: Clock,
        *,
        limits: Limits = _NO_LIMITS,
        lease_ttl: float = LEASE_TTL,
        metrics: StoreMetrics | None = None,
        own_key: bool = True,
    ) -> "JetStreamEngine":
        """Connect to a store, or create it; takes time in proportion to its number of runs.

        A new store gets a key that signs tokens, if it is to have an `own_key`.

        Raises StoreUnusable, or Unanswered if NATS is out of reach.
        """
        connection = await Connection.open(location)
        try:
            identity = await prepare(connection, location, limits, new_identity(own_key=own_key))
        except BaseException:
            await connection.close()
            raise
        engine = cls(
            clock=clock,
            connection=connection,
            location=location,
            identity=identity,
            lease_ttl=lease_ttl,
            metrics=metrics or StoreMetrics(),
        )
        try:
            await engine._leases.open()
            await engine._feed.open()
        except BaseException:
            await engine.close()
            raise
        return engine

    @property
    def identity(self) -> StoreIdentity:
        """Identity of the store, to which resume tokens are bound."""
        return self._identity

    async def token_keys(self) -> tuple[TokenKey, ...]:
        """Return the keys of the store, which `lavant store rotate-key` may have changed."""
        with self._in_reach():
            try:
                return (await read_identity(self._messages, self._location)).keys
            except StoreUnusable as error:
                raise unavailable(str(error)) from error

    @property
    def opening(self) -> None:
        """None: replicas share the store."""

    @property
    def leases(self) -> Leases:
        """Leases of consumers."""
        return self._leases

    async def create_run(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings. Returns the stored run if its settings are equal; else raises RUN_EXISTS."""
        created: Run = await self._writer.submit(key, Create(run))
        return created

    async def get_run(self, key: RunKey) -> Run:
        """Return a run, or raise RUN_NOT_FOUND."""
        with self._in_reach():
            return (await self._reader.last(key)).run

    async def find_run(self, key: RunKey) -> Run | None:
        """Return a run; None if there is no such run."""
        with self._in_reach():
            record = await self._reader.find_last(key)
            return None if record is None else record.run

    async def list_runs(self, query: RunQuery, before: int | None = None) -> RunPage:
        """List runs, the newest first, those created before a position of an earlier page."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.list_runs(query, before)

    async def list_changes(
        self, query: RunQuery, after: int = 0, until: int | None = None
    ) -> tuple[Sequence[ListedRun], int]:
        """List runs by their last change of state, the oldest first: changes after a position and up to another."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.list_changes(query, after, until)

    async def list_deletions(
        self, tenant: str, after: int, until: int, within: Restriction | None = None
    ) -> Sequence[str]:
        """List the IDs of runs that were deleted after a position of the feed of changes and up to another."""
        with self._in_reach():
            return await self._feed.projection.list_deletions(tenant, after, until, within)

    async def last_change(self, tenant: str, after: int = 0) -> int:
        """Return the position of a tenant's last change that this replica knows of, never one before `after`."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.last_change(tenant, after)

    def watch_changes(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change that `list_changes` would report."""
        return self._feed.watch(tenant, callback)

    async def list_tenants(self) -> Sequence[str]:
        """List the tenants that have runs, or whose deletions are kept, in the order of their names."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.list_tenants()

    def watch_tenants(self, callback: Callable[[str], None]) -> Watch:
        """Call back with the tenant after each change that `list_changes` would report, of any tenant."""
        return self._feed.watch_all(callback)

    async def label_keys(self, tenant: str, limit: int) -> Sequence[str]:
        """List the keys that labels of a tenant's runs have, up to a number of them."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.label_keys(tenant, limit)

    def stored_bytes(self, tenant: str) -> int:
        """Return the bytes of the events of all of a tenant's runs, as far as this replica knows them."""
        return self._feed.stored_bytes.of(tenant)

    def append(
        self, key: RunKey, batch: ProducerBatch, owner: Owner = NOBODY, within: Restriction | None = None
    ) -> "asyncio.Future[BatchReceipt]":
        """Append a batch by the rules of `appending`; the future returns the receipt once the batch is durable."""
        return self._writer.submit(key, Append(batch, owner, within))

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on."""
        with self._in_reach():
            return await self._reader.read(key, after, max_bytes, created_ns)

    def watch(self, key: RunKey, callback: Callable[[Notice], None]) -> Watch:
        """Call back with the snapshot of a run, then after each durable change."""
        return self._watches.add(key, callback)

    async def cancel_run(self, key: RunKey, reason: str, within: Restriction | None = None) -> Run:
        """Record a request to cancel a run, and notify its watchers; the first reason stays."""
        run: Run = await self._writer.submit(key, Cancel(reason, within))
        return run

    async def delete_run(self, key: RunKey, within: Restriction | None = None) -> None:
        """Delete an ended run and its log, or raise RUN_NOT_ENDED."""
        await self._writer.submit(key, Delete(within))

    async def abandon_silent_runs(self, silent_since_ns: int) -> Sequence[RunKey]:
        """End as ABANDONED every run whose producers sent no batch for longer than its producer_timeout.

        While NATS is out of reach no batch can be stored: silence counts from the reconnect at the earliest.
        """
        try:
            return await self._abandon_silent_runs(max(silent_since_ns, self._in_reach_since_ns))
        except ServiceError:
            self._in_reach_since_ns = self._clock.time_ns()
            raise

    async def close(self) -> None:
        """Store queued changes and disconnect from NATS. May be called repeatedly."""
        if self._writer.closed:
            return
        await self._writer.close()
        await self._watches.close()
        await self._feed.close()
        await self._connection.close()

    async def _abandon_silent_runs(self, silent_since_ns: int) -> Sequence[RunKey]:
        with self._in_reach():
            await self._feed.caught_up()
            silent = await self._feed.projection.list_silent(silent_since_ns, self._clock.time_ns())
        ended: list[RunKey] = []
        for start in range(0, len(silent), _ABANDONED_AT_ONCE):
            some = silent[start : start + _ABANDONED_AT_ONCE]
            found = await asyncio.gather(*(self._abandon(key, silent_since_ns) for key in some))
            ended += [key for key, was_ended in zip(some, found, strict=True) if was_ended]
        return ended

    async def _abandon(self, key: RunKey, silent_since_ns: int) -> bool:
        """End a run if it is silent; if not, record in the projection when a producer last sent a batch."""
        change = Abandon(silent_since_ns)
        ended: bool = await self._writer.submit(key, change)
        if not ended and change.state is not None:
            await self._feed.projection.note_producer_seen(key, producer_seen_ns(change.state.run))
        return ended

    def _look_around(self) -> None:
        """Poll for changes after a reconnect: notifications were lost meanwhile, and no batch was stored."""
        self._in_reach_since_ns = self._clock.time_ns()
        self._watches.poll()
        self._feed.poll()

    @contextmanager
    def _in_reach(self) -> Iterator[None]:
        self._writer.check_open()
        try:
            yield
        except Unanswered as error:
            raise unavailable("the store is out of reach") from error
