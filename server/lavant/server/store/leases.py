"""One stream per consumer: the rules for everyone, and leases for a store that one process owns."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.model import ConsumerKey
from lavant.server.store.port import Claim, Lease
from lavant.v1.error_pb2 import ErrorReason

LEASE_TTL = 15.0
_SWEEP_FROM = 1_024


def decide(held: Lease | None, claim: Claim, now: float) -> None:
    """Return if a claimant gets the place at monotonic time `now`, or raise why not.

    A lease that has expired is as good as none. Raises STALE_ATTEMPT for a late duplicate of the
    session that holds the place, and CONSUMER_BUSY for a rival that does not take over, with
    what is left of the lease as `retry_after`.
    """
    if held is None or held.valid_until <= now:
        return
    if held.claim.session_id == claim.session_id:
        if claim.attempt <= held.claim.attempt:
            raise _stale(held, claim)
    elif not claim.take_over:
        raise _busy(held, held.valid_until - now)


class _Place(NamedTuple):
    lease: Lease
    on_lost: Callable[[], None]


class ProcessLeases:
    """Leases in the memory of the one process that owns a store.

    They end with the process. Fences still grow over restarts: they count up from `incarnation`, which must
    be higher than every fence of earlier processes.
    """

    def __init__(self, *, clock: Clock, incarnation: int, ttl: float = LEASE_TTL) -> None:
        self._clock = clock
        self._ttl = ttl
        self._fences = count(incarnation + 1)
        self._places: dict[ConsumerKey, _Place] = {}
        self._sweep_at = _SWEEP_FROM

    async def acquire(self, key: ConsumerKey, claim: Claim, on_lost: Callable[[], None]) -> Lease:
        """Get the place, or raise CONSUMER_BUSY or STALE_ATTEMPT; who had it is told at once."""
        now = self._clock.monotonic()
        before = self._places.get(key)
        decide(before.lease if before else None, claim, now)
        lease = Lease(key=key, claim=claim, fence=next(self._fences), valid_until=now + self._ttl)
        self._places[key] = _Place(lease, on_lost)
        if before:
            before.on_lost()
        elif len(self._places) > self._sweep_at:
            self._sweep(now)
        return lease

    async def renew(self, lease: Lease) -> Lease | None:
        """Hold the place for longer, even past its end if nobody asked for it; None: it is somebody else's."""
        place = self._places.get(lease.key)
        if place is None or place.lease.fence != lease.fence:
            return None
        renewed = replace(lease, valid_until=self._clock.monotonic() + self._ttl)
        self._places[lease.key] = _Place(renewed, place.on_lost)
        return renewed

    async def release(self, lease: Lease) -> None:
        """Give the place back, if it is still this lease's."""
        place = self._places.get(lease.key)
        if place is not None and place.lease.fence == lease.fence:
            del self._places[lease.key]

    def _sweep(self, now: float) -> None:
        self._places = {key: place for key, place in self._places.items() if place.lease.valid_until > now}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._places))


def _stale(held: Lease, claim: Claim) -> LavantError:
    return LavantError(
        ErrorReason.ERROR_REASON_STALE_ATTEMPT,
        f"attempt {held.claim.attempt} of this session streams already; attempt {claim.attempt} came too late",
        metadata={"attempt": str(held.claim.attempt)},
    )


def _busy(held: Lease, left: float) -> LavantError:
    return LavantError(
        ErrorReason.ERROR_REASON_CONSUMER_BUSY,
        f"another session streams as consumer {held.key.consumer_id}; wait, take over, or use another consumer_id",
        retry_after=left,
    )
