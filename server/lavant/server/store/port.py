"""What the server needs of a store. An engine implements `Engine`; one suite of tests checks them all."""

from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.chunk import Chunk
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import RunFilter


class StoreIdentity(NamedTuple):
    """What resume tokens are bound to: lives as long as the store's content.

    `epoch` is another one after a restore from a backup. `secret` holds 32 random bytes, the
    same on every replica.
    """

    epoch: str
    secret: bytes


class Opening(NamedTuple):
    """One opening of a store that one process owns: its incarnation, and that of the opening before, 0 for the first.

    An incarnation is never used twice, whatever file was put in the store's place. What was derived from the store
    in the opening before is still true of it; what was derived in any other is not.
    """

    incarnation: int
    before: int


class Notice(NamedTuple):
    """A durable change to a run: tells its watchers how it stands.

    `chunk` holds the events that were just committed, if the engine has them at hand;
    otherwise `last_sequence` says up to where `read` will answer.
    """

    last_sequence: int
    sealed: bool
    producer_seen_ns: int
    chunk: Chunk | None = None
    cancel_reason: str | None = None
    deleted: bool = False


class Watch(Protocol):
    """An interest in changes, until closed."""

    def close(self) -> None:
        """Lose interest; harmless when repeated."""


class RunChange(NamedTuple):
    """A run as it stands, and the place of its last change of state in the feed of all changes."""

    position: int
    run: Run


class RunPage(NamedTuple):
    """Runs, the newest first, and where the next page begins; None: there is none."""

    runs: Sequence[Run]
    next_position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who asks for a consumer's place. The rules are in `leases.decide`."""

    session_id: str
    attempt: int
    take_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A consumer's hold on its place.

    `fence` grows with every lease of the same consumer, restarts of the server included.
    `valid_until` is monotonic time, counted from the start of the acquisition or last renewal.
    """

    key: ConsumerKey
    claim: Claim
    fence: int
    valid_until: float


class Leases(Protocol):
    """Gives each consumer's place to one stream at a time."""

    async def acquire(self, key: ConsumerKey, claim: Claim, on_lost: Callable[[], None]) -> Lease:
        """Get the place, or raise CONSUMER_BUSY or STALE_ATTEMPT.

        `on_lost` is called soon after somebody else got the place; the failed renewal is the
        backstop. Who had it is told before the new lease is returned where both are in this process.
        """

    async def renew(self, lease: Lease) -> Lease | None:
        """Hold the place for longer; None: somebody else has it. Raises UNAVAILABLE if that cannot be known."""

    async def release(self, lease: Lease) -> None:
        """Give the place back, if it is still this lease's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs of a tenant, and how many at most."""

    tenant: str
    limit: int
    filter: RunFilter = field(default_factory=RunFilter)


class Engine(Protocol):
    """Stores runs and their logs.

    Guarantees: whatever returns or is announced is durable. Appends to one run take effect in the
    order of the calls. Watchers hear of commits in the order of the log, each after it is
    durable and before the append's caller. Watch callbacks run on the event loop, must not
    block and must not raise.

    Raises RUN_NOT_FOUND for a run that the tenant does not have, DATA_LOSS for a damaged record,
    QUOTA_EXCEEDED when there is no room, UNAVAILABLE when the store is out of reach.
    """

    @property
    def identity(self) -> StoreIdentity:
        """What resume tokens are bound to."""

    @property
    def opening(self) -> Opening | None:
        """This opening of the store; None where replicas share the store."""

    @property
    def leases(self) -> Leases:
        """The consumers' places."""

    async def create_run(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings, or answer with the stored one if they are equal; else RUN_EXISTS.

        Settings are kind, name, labels, parent_run_id, conversation_id and producer_timeout; the
        engine sets state and times.
        """

    async def get_run(self, key: RunKey) -> Run:
        """Tell how a run stands."""

    async def list_runs(self, query: RunQuery, before: int | None = None) -> RunPage:
        """List runs, the newest first, those created before a position of an earlier page.

        A page is bounded in runs, in bytes and in runs looked at: a short or an empty one may not be the last.
        """

    async def list_changes(
        self, query: RunQuery, after: int = 0, until: int | None = None
    ) -> tuple[Sequence[RunChange], int]:
        """List runs by their last change of state, the oldest first, those behind a position and up to another.

        Returns the matching ones, at most `limit`, and the position up to which was looked; it
        equals `after` when there is nothing new, and `until` when all up to there were looked at. A run that
        changed twice appears once, as it stands. Positions tell only which changes lie behind them: they
        are not to be compared otherwise, but for equality.
        """

    async def last_change(self, tenant: str, after: int = 0) -> int:
        """Tell the position of a tenant's last change that is known here, and not before another position."""

    def watch_changes(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change that `list_changes` would tell of."""

    def append(self, key: RunKey, batch: ProducerBatch) -> Future[BatchReceipt]:
        """Append a batch by the rules of `appending`; the receipt comes once it is durable.

        The engine keeps the batch's events and numbers them in place: the caller must not use
        them again. Raises RUN_SEALED, PRODUCER_GAP, PRODUCER_FENCED, PRODUCER_CONFLICT, INVALID_FIELD.
        """

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on.

        With `created_ns`, only of the run created at that time: RUN_NOT_FOUND if another has its id
        by now. Returns whole chunks of about `max_bytes` in all, at least one unless nothing is stored
        behind `after`. The first may begin at or before `after`.
        """

    def watch(self, key: RunKey, callback: Callable[[Notice], None]) -> Watch:
        """Call back after each durable change of a run, existing or yet to be created."""

    async def cancel_run(self, key: RunKey, reason: str) -> Run:
        """Remember that somebody wants the run to stop, and tell its watchers; the first reason stays.

        A run that has ended is left as it is.
        """

    async def pending_cancel(self, key: RunKey) -> str | None:
        """Tell the reason of a cancel request that the run has not ended after; None: there is none."""

    async def delete_run(self, key: RunKey) -> None:
        """Delete an ended run and its log, or raise RUN_NOT_ENDED."""

    async def abandon_silent_runs(self, silent_since_ns: int) -> Sequence[RunKey]:
        """End as ABANDONED every run whose producer kept silent for longer than its producer_timeout.

        A producer counts as heard from at `silent_since_ns` at the earliest: the time since when
        this server could have heard it. Each run is ended by one replica, once.
        """

    async def close(self) -> None:
        """Commit what is queued and let go of the store."""
