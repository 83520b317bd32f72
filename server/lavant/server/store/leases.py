"""Leases of consumers: the rules that all engines share, and leases for a store that one process owns."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError
from lavant.server.model import ConsumerKey
from lavant.server.store.port import Holder, Lease
from lavant.v1.error_pb2 import ErrorReason, StaleAttempt

LEASE_TTL = 15.0
_SWEEP_FROM = 1_024
_MAX_DISPLACED = 16  # sessions: a record of a lease stays below about 10 KB


def decide(held: Lease | None, holder: Holder, now: float) -> tuple[str, ...]:
    """Return `Lease.displaced` of the lease that `holder` acquires at monotonic time `now`, or refuse it.

    An expired lease counts as none. Raises STALE_ATTEMPT for a late duplicate of the session that holds the lease,
    CONSUMER_BUSY for another session that does not take over, with the rest of the lease's TTL as `retry_after`, and
    PERMISSION_DENIED for one that takes over and may not, since the lease belongs to another owner. A displaced session
    cannot take over: its client may repeat `take_over` with every call, and the two would displace each other forever.
    """
    if held is None or held.valid_until <= now:
        return ()
    if (held.holder.session_id, held.holder.owner.id) == (holder.session_id, holder.owner.id):
        if holder.attempt <= held.holder.attempt:
            raise _stale(held, holder)
        return held.displaced
    if not holder.take_over or holder.session_id in held.displaced:
        raise _busy(held, held.valid_until - now)
    holder.owner.check(held.holder.owner.id, f"consumer {held.key.consumer_id}", "consumer_id")
    return (*held.displaced, held.holder.session_id)[-_MAX_DISPLACED:]


class _Held(NamedTuple):
    lease: Lease
    on_lost: Callable[[], None]


class ProcessLeases:
    """Leases in the memory of the one process that owns a store.

    They end with the process. Fences grow over restarts too: they count up from `incarnation`, which must
    be higher than every fence of earlier processes.
    """

    def __init__(self, *, clock: Clock, incarnation: int, ttl: float = LEASE_TTL) -> None:
        self._clock = clock
        self._ttl = ttl
        self._fences = count(incarnation + 1)
        self._held: dict[ConsumerKey, _Held] = {}
        self._sweep_at = _SWEEP_FROM

    async def acquire(self, key: ConsumerKey, holder: Holder, on_lost: Callable[[], None]) -> Lease:
        """Acquire a lease, or raise CONSUMER_BUSY or STALE_ATTEMPT. Calls `on_lost` of the previous holder."""
        now = self._clock.monotonic()
        before = self._held.get(key)
        displaced = decide(before.lease if before else None, holder, now)
        fence, valid_until = next(self._fences), now + self._ttl
        lease = Lease(key=key, holder=holder, fence=fence, valid_until=valid_until, displaced=displaced)
        self._held[key] = _Held(lease, on_lost)
        if before:
            before.on_lost()
        elif len(self._held) > self._sweep_at:
            self._sweep(now)
        return lease

    async def acquire_and_release(self, key: ConsumerKey, holder: Holder) -> int:
        """Acquire a lease and release it in one step; return its fence. Calls `on_lost` of the previous holder."""
        before = self._held.get(key)
        decide(before.lease if before else None, holder, self._clock.monotonic())
        if before:
            del self._held[key]
            before.on_lost()
        return next(self._fences)

    async def renew(self, lease: Lease) -> Lease | None:
        """Extend a lease, even an expired one that no holder has acquired since; None if another holder has it."""
        return self._renew(lease, self._clock.monotonic() + self._ttl)

    async def renew_all(
        self, leases: Sequence[Lease], answered: Callable[[int, Lease | BaseException | None], None]
    ) -> None:
        """Extend leases, without a task for each: most leases are of streams in which nothing happens."""
        valid_until = self._clock.monotonic() + self._ttl
        for index, lease in enumerate(leases):
            answered(index, self._renew(lease, valid_until))

    async def release(self, lease: Lease) -> None:
        """Release a lease, unless another holder has it."""
        held = self._held.get(lease.key)
        if held is not None and held.lease.fence == lease.fence:
            del self._held[lease.key]

    def _renew(self, lease: Lease, valid_until: float) -> Lease | None:
        held = self._held.get(lease.key)
        if held is None or held.lease.fence != lease.fence:
            return None
        held.lease.valid_until = valid_until
        return held.lease

    def _sweep(self, now: float) -> None:
        self._held = {key: held for key, held in self._held.items() if held.lease.valid_until > now}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._held))


def _stale(held: Lease, holder: Holder) -> ServiceError:
    return ServiceError(
        ErrorReason.ERROR_REASON_STALE_ATTEMPT,
        f"attempt {held.holder.attempt} of this session streams already; attempt {holder.attempt} came too late",
        detail=StaleAttempt(attempt=held.holder.attempt),
    )


def _busy(held: Lease, left: float) -> ServiceError:
    return ServiceError(
        ErrorReason.ERROR_REASON_CONSUMER_BUSY,
        f"another session streams as consumer {held.key.consumer_id}; wait, take over, or use another consumer_id",
        retry_after=left,
    )
