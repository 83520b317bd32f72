"""The engine: what the port asks for, put together from the parts of this package."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, unavailable
from lavant.server.measures import StoreMeasures
from lavant.server.model import RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.jetstream.commits import Commits
from lavant.server.store.jetstream.connection import Connection, Unanswered
from lavant.server.store.jetstream.feed import Feed
from lavant.server.store.jetstream.leases import JetStreamLeases
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.messages import Messages
from lavant.server.store.jetstream.reader import Reader
from lavant.server.store.jetstream.runlog import Abandon, Append, Cancel, Create, Delete
from lavant.server.store.jetstream.setup import Limits, prepare
from lavant.server.store.jetstream.watches import Watches
from lavant.server.store.jetstream.writer import Writer
from lavant.server.store.leases import LEASE_TTL
from lavant.server.store.port import Leases, Notice, RunChange, RunPage, RunQuery, StoreIdentity, Watch
from lavant.server.store.runs import heard_ns
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run

_ABANDONED_AT_ONCE = 200
_NO_LIMITS = Limits()


class JetStreamEngine:
    """Stores runs in streams that replicas share. See `port.Engine` for the guarantees.

    Lists may lag behind what another replica has stored, by milliseconds as a rule.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        connection: Connection,
        location: Location,
        identity: StoreIdentity,
        lease_ttl: float,
        measures: StoreMeasures,
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._identity = identity
        self._in_reach_since_ns = 0
        messages = Messages(connection)
        self._reader = Reader(messages, location)
        self._watches = Watches(connection, messages, location)
        self._feed = Feed(connection, messages, location)
        self._leases = JetStreamLeases(
            clock=clock, connection=connection, messages=messages, location=location, ttl=lease_ttl
        )
        commits = Commits(clock=clock, messages=messages, watches=self._watches, feed=self._feed, measures=measures)
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
        measures: StoreMeasures | None = None,
    ) -> "JetStreamEngine":
        """Connect to a store, or create it; takes time in proportion to its number of runs.

        Raises StoreUnusable, or Unanswered when NATS is out of reach.
        """
        connection = await Connection.open(location.servers)
        try:
            identity = await prepare(connection, location, limits)
        except BaseException:
            await connection.close()
            raise
        engine = cls(
            clock=clock,
            connection=connection,
            location=location,
            identity=identity,
            lease_ttl=lease_ttl,
            measures=measures or StoreMeasures(),
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
        """What resume tokens are bound to."""
        return self._identity

    @property
    def opening(self) -> None:
        """None: replicas share the store."""

    @property
    def leases(self) -> Leases:
        """The consumers' places."""
        return self._leases

    async def create_run(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings, or answer with the stored one if they are equal; else RUN_EXISTS."""
        created: Run = await self._writer.submit(key, Create(run))
        return created

    async def get_run(self, key: RunKey) -> Run:
        """Tell how a run stands."""
        with self._in_reach():
            return (await self._reader.last(key)).run

    async def list_runs(self, query: RunQuery, before: int | None = None) -> RunPage:
        """List runs, the newest first, those created before a position of an earlier page."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.list_runs(query, before)

    async def list_changes(
        self, query: RunQuery, after: int = 0, until: int | None = None
    ) -> tuple[Sequence[RunChange], int]:
        """List runs by their last change of state, the oldest first, those behind a position and up to another."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.list_changes(query, after, until)

    async def last_change(self, tenant: str, after: int = 0) -> int:
        """Tell the position of a tenant's last change that is known here, and not before another position."""
        with self._in_reach():
            await self._feed.caught_up()
            return await self._feed.projection.last_change(tenant, after)

    def watch_changes(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change that `list_changes` would tell of."""
        return self._feed.watch(tenant, callback)

    def append(self, key: RunKey, batch: ProducerBatch) -> "asyncio.Future[BatchReceipt]":
        """Append a batch by the rules of `appending`; the receipt comes once it is durable."""
        return self._writer.submit(key, Append(batch))

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on."""
        with self._in_reach():
            return await self._reader.read(key, after, max_bytes, created_ns)

    def watch(self, key: RunKey, callback: Callable[[Notice], None]) -> Watch:
        """Call back after each durable change of a run, existing or yet to be created."""
        return self._watches.add(key, callback, *self._writer.known(key))

    async def cancel_run(self, key: RunKey, reason: str) -> Run:
        """Remember that somebody wants the run to stop, and tell its watchers; the first reason stays."""
        run: Run = await self._writer.submit(key, Cancel(reason))
        return run

    async def pending_cancel(self, key: RunKey) -> str | None:
        """Tell the reason of a cancel request that the run has not ended after; None: there is none."""
        with self._in_reach():
            log = (await self._reader.last(key)).log
            return None if log.sealed else log.cancel_reason

    async def delete_run(self, key: RunKey) -> None:
        """Delete an ended run and its log, or raise RUN_NOT_ENDED."""
        await self._writer.submit(key, Delete())

    async def abandon_silent_runs(self, silent_since_ns: int) -> Sequence[RunKey]:
        """End as ABANDONED every run whose producer kept silent for longer than its producer_timeout.

        While NATS is out of reach no producer can be heard: silence counts from then on.
        """
        try:
            return await self._abandon_silent_runs(max(silent_since_ns, self._in_reach_since_ns))
        except LavantError:
            self._in_reach_since_ns = self._clock.time_ns()
            raise

    async def close(self) -> None:
        """Store what is queued and let go of NATS; harmless when repeated."""
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
        """End a run if it is silent; if not, lists learn when its producer was heard from."""
        change = Abandon(silent_since_ns)
        ended: bool = await self._writer.submit(key, change)
        if not ended and change.state is not None:
            await self._feed.projection.heard(key, heard_ns(change.state.run))
        return ended

    def _look_around(self) -> None:
        """Bells were lost while NATS was out of reach, and no producer was heard."""
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
