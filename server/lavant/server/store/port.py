"""Interface of a store. Engines implement `Engine`; one suite of tests checks them all."""

from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.ownership import NOBODY, Owner
from lavant.server.store.restrictions import Restriction
from lavant.server.store.token_keys import TokenKey
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import RunFilter

DELETIONS_KEPT = 25 * 3600.0  # seconds for which `list_deletions` reports a deletion


class StoreIdentity(NamedTuple):
    """Identity of a store, to which resume tokens are bound.

    `epoch` changes when the store is restored from a backup. `keys` sign and verify tokens, the same on every replica;
    none: the store was made for keys of the settings.
    """

    epoch: str
    keys: tuple[TokenKey, ...]


class Opening(NamedTuple):
    """Number of an opening of a store by the process that owns it, and of the previous opening; 0 if none.

    A number is never used twice, whichever file the store's path names. Data derived from the store in the previous
    opening is still valid; data derived in any other opening is not.
    """

    incarnation: int
    before: int


class Notice(NamedTuple):
    """State of a run, at the start of a watch and after each durable change.

    `chunk` holds the events that were just committed, if the engine has them in memory; `read` returns events up to
    `last_sequence`. `cancel_reason` is set while a cancel request is pending, that is until the run ends.
    `created_ns` distinguishes successive runs with the same ID; 0: unknown.
    """

    last_sequence: int
    sealed: bool
    producer_seen_ns: int
    chunk: Chunk | None = None
    cancel_reason: str | None = None
    deleted: bool = False
    created_ns: int = 0


class Watch(Protocol):
    """Watch of changes, until closed."""

    def close(self) -> None:
        """Stop calling back. May be called repeatedly."""


class ListedRun(NamedTuple):
    """Snapshot of a run, and the position of its last change of state in the feed of changes."""

    position: int
    run: Run


class RunPage(NamedTuple):
    """Page of runs, the newest first, and the position of the next page; None on the last page."""

    runs: Sequence[Run]
    next_position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Session and attempt that hold, or try to acquire, a consumer's lease. The rules are in `leases.decide`.

    The session belongs to `owner`: with the same ID, another owner has another session.
    """

    session_id: str
    attempt: int
    take_over: bool = False
    owner: Owner = NOBODY


@dataclass(slots=True, kw_only=True)
class Lease:
    """Time-limited right of a consumer to its stream. Only the store that issued it changes it.

    `fence` grows with every acquisition for the same consumer, also over restarts of the server.
    `valid_until` is monotonic time, in seconds, counted from the start of the acquisition or last renewal.
    `displaced` has the sessions, the latest last, that were displaced since the lease was last free.
    """

    key: ConsumerKey
    holder: Holder
    fence: int
    valid_until: float
    displaced: tuple[str, ...] = ()


class Leases(Protocol):
    """Leases of consumers: each has one holder at a time."""

    async def acquire(self, key: ConsumerKey, holder: Holder, on_lost: Callable[[], None]) -> Lease:
        """Acquire a lease, or raise CONSUMER_BUSY, STALE_ATTEMPT or PERMISSION_DENIED.

        `on_lost` is called soon after another holder has acquired the lease; a failed renewal is the backstop. If the
        previous holder is in this process, it is called before this returns.
        """

    async def acquire_and_release(self, key: ConsumerKey, holder: Holder) -> int:
        """Acquire a lease and release it in one step, for a stream that is sent at once; return its fence.

        Refuses as `acquire` does, and displaces a previous holder in the same way.
        """

    async def renew(self, lease: Lease) -> Lease | None:
        """Extend a lease; None if another holder has it. Raises UNAVAILABLE if its holder cannot be determined."""

    async def renew_all(
        self, leases: Sequence[Lease], answered: Callable[[int, Lease | BaseException | None], None]
    ) -> None:
        """Extend leases as `renew` does; `answered` gets the index and the outcome of each as soon as it is known."""

    async def release(self, lease: Lease) -> None:
        """Release a lease, unless another holder has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Filter of a tenant's runs, and the maximum number of runs to return. Only runs that `within` allows match.

    The server's own queries find system runs too, whatever the filter says of them: it speaks for callers only.
    """

    tenant: str
    limit: int
    filter: RunFilter = field(default_factory=RunFilter)
    within: Restriction | None = None
    system_runs: bool = True


class Engine(Protocol):
    """Stores runs and their logs.

    Guarantees: whatever a method returns or a watch reports is durable. Appends to one run take effect in the
    order of the calls. Watches report commits in the order of the log, each after it is durable and before the
    append returns. Watch callbacks run on the event loop, must not block and must not raise.

    Raises RUN_NOT_FOUND for a run that the tenant does not have, DATA_LOSS for a damaged record,
    QUOTA_EXCEEDED when the store is full, UNAVAILABLE when the store is out of reach.
    """

    @property
    def identity(self) -> StoreIdentity:
        """Identity of the store, to which resume tokens are bound."""

    async def token_keys(self) -> tuple[TokenKey, ...]:
        """Return the current keys of the store, which may have been rotated since it was opened."""

    @property
    def opening(self) -> Opening | None:
        """This opening of the store; None where replicas share the store."""

    @property
    def leases(self) -> Leases:
        """Leases of consumers."""

    async def create_run(self, key: RunKey, run: Run) -> Run:
        """Create a run from its settings. Returns the stored run if its settings are equal; else raises RUN_EXISTS.

        Settings are kind, name, labels, parent_run_id, conversation_id and producer_timeout; the
        engine sets state and times.
        """

    async def get_run(self, key: RunKey) -> Run:
        """Return a run, or raise RUN_NOT_FOUND."""

    async def find_run(self, key: RunKey) -> Run | None:
        """Return a run; None if there is no such run."""

    async def list_runs(self, query: RunQuery, before: int | None = None) -> RunPage:
        """List runs, the newest first, those created before a position of an earlier page.

        A page is full unless it is the last, or its runs have 1 MiB, or `listing.WINDOWS` were examined for it.
        """

    async def list_changes(
        self, query: RunQuery, after: int = 0, until: int | None = None
    ) -> tuple[Sequence[ListedRun], int]:
        """List runs by their last change of state, the oldest first: changes after a position and up to another.

        Returns the matching runs, at most `limit`, and the position up to which runs were examined: `after` when
        there is nothing new, `until` when all of them were examined. A run that changed twice appears once, in its
        current state. Compare positions for equality only; their order is not defined.
        """

    async def list_deletions(
        self, tenant: str, after: int, until: int, within: Restriction | None = None
    ) -> Sequence[str]:
        """List the IDs of runs that were deleted after a position of the feed of changes and up to another.

        With a restriction, only of those that it allows.

        Deletions are kept for `DELETIONS_KEPT` seconds, and may be missing after that.
        """

    async def last_change(self, tenant: str, after: int = 0) -> int:
        """Return the position of a tenant's last change that this replica knows of, never one before `after`."""

    def watch_changes(self, tenant: str, callback: Callable[[], None]) -> Watch:
        """Call back after each change that `list_changes` would report."""

    async def list_tenants(self) -> Sequence[str]:
        """List the tenants that have runs, or whose deletions are kept, in the order of their names.

        Tenants of the server's own are among them. Takes time in proportion to the number of tenants, not of runs.
        """

    def watch_tenants(self, callback: Callable[[str], None]) -> Watch:
        """Call back with the tenant after each change that `list_changes` would report, of any tenant."""

    async def label_keys(self, tenant: str, limit: int) -> Sequence[str]:
        """List the keys that labels of a tenant's runs have, up to a number of them.

        Takes time in proportion to the number of keys, not of runs.
        """

    def stored_bytes(self, tenant: str) -> int:
        """Return the bytes of the events of all of a tenant's runs. Never waits, and reads nothing.

        Runs that were deleted do not count. Replicas may miss up to 4 MiB of each open run that others append to.
        """

    def append(
        self, key: RunKey, batch: ProducerBatch, owner: Owner = NOBODY, within: Restriction | None = None
    ) -> Future[BatchReceipt]:
        """Append a batch by the rules of `appending`; the future returns the receipt once the batch is durable.

        `owner` is the principal that sent it, to which the producer belongs from then on. A run that `within` does not
        allow is none.
        If the batch has `create` and the run does not exist, it is created in the same commit, as by `create_run`.
        The engine keeps the batch's events and numbers them in place: the caller must not reuse them. Raises
        RUN_EXISTS, RUN_SEALED, PRODUCER_GAP, PRODUCER_FENCED, PRODUCER_CONFLICT, PERMISSION_DENIED, INVALID_FIELD.
        """

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        """Read stored events in order, from the chunk that holds sequence `after` + 1 on.

        With `created_ns`, only of the run created at that time: RUN_NOT_FOUND if another run has its ID
        now. Returns whole chunks of about `max_bytes` in all, at least one unless nothing is stored
        after `after`. The first may begin at or before `after`.
        """

    def watch(self, key: RunKey, callback: Callable[[Notice], None]) -> Watch:
        """Call back with the snapshot of a run as soon as it is read, then after each durable change.

        The first call comes after this returns. A run that does not exist yet has no snapshot; its creation is the
        first change. The snapshot may contain changes that are reported again.
        """

    async def cancel_run(self, key: RunKey, reason: str, within: Restriction | None = None) -> Run:
        """Record a request to cancel a run that `within` allows, and notify its watchers; the first reason stays.

        A run that has ended is not changed.
        """

    async def delete_run(self, key: RunKey, within: Restriction | None = None) -> None:
        """Delete an ended run that `within` allows, and its log, or raise RUN_NOT_ENDED."""

    async def abandon_silent_runs(self, silent_since_ns: int) -> Sequence[RunKey]:
        """End as ABANDONED every run whose producers sent no batch for longer than its producer_timeout.

        Silence is counted from `silent_since_ns` at the earliest: the wall time from which this server could
        receive batches. Each run is ended by one replica, once.
        """

    async def close(self) -> None:
        """Commit queued changes and release the store."""
