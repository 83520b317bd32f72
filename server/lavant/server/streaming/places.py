"""The consumers' places that this process holds, renewed for as long as their streams live."""

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from lavant.server.clock import Clock, Timer
from lavant.server.model import ConsumerKey
from lavant.server.store.port import Claim, Lease, Leases

RENEWAL_INTERVAL = 5.0  # seconds: a third of the leases' time to live
_RETRY_INTERVAL = 1.0  # seconds: several tries fit in before a place can be used no longer

_log = structlog.get_logger(__name__)


class Place:
    """One stream's hold on its consumer's place."""

    __slots__ = ("_on_lost", "lease", "lost")
    lease: Lease

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.lost = False
        self._on_lost = on_lost

    @property
    def usable_until(self) -> float:
        """When to stop sending, unless the lease is renewed: well before anybody else can have it."""
        return self.lease.valid_until - RENEWAL_INTERVAL

    def lose(self) -> None:
        """Somebody else has the place now."""
        self.lost = True
        self._on_lost()

    def expire(self) -> None:
        """Somebody else may have it soon: a write that is under way must not end later."""
        self._on_lost()


class Places:
    """Takes, renews and gives back places.

    A place whose renewals fail may be sent on until `Place.usable_until`, and no longer.
    """

    def __init__(self, leases: Leases, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self._held: set[Place] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """How many places are held."""
        return len(self._held)

    async def take(self, key: ConsumerKey, claim: Claim, on_lost: Callable[[], None]) -> Place:
        """Get a place, or raise CONSUMER_BUSY or STALE_ATTEMPT. `on_lost` is called when it is lost."""
        place = Place(on_lost)
        place.lease = await self._leases.acquire(key, claim, place.lose)
        self._held.add(place)
        if self._timer is None:
            self._schedule_renewal()
        return place

    async def give_back(self, place: Place) -> None:
        """Let the consumer's next stream in, also if the caller is cancelled meanwhile; harmless when repeated."""
        if place in self._held:
            await asyncio.shield(self._let_go(place))

    def abandon(self, place: Place) -> None:
        """Give back without waiting, for a handler that is being cancelled; harmless when repeated."""
        if place in self._held:
            self._let_go(place)

    async def close(self) -> None:
        """Wait until all that is being given back is free."""
        if self._timer is not None:
            self._timer.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _schedule_renewal(self, seconds: float = RENEWAL_INTERVAL) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + seconds, self._start_renewal)

    def _start_renewal(self) -> None:
        self._timer = None
        if self._held:
            self._schedule_renewal()
            self._spawn(self._renew_all())

    async def _renew_all(self) -> None:
        answered = await asyncio.gather(*map(self._renew, tuple(self._held)))
        if not all(answered) and self._held and self._timer is not None:
            self._timer.cancel()
            self._schedule_renewal(_RETRY_INTERVAL)

    async def _renew(self, place: Place) -> bool:
        """Renew, or find the place lost; tells whether the store answered."""
        try:
            renewed = await self._leases.renew(place.lease)
        except Exception:
            _log.warning("lease_renewal_failed", exc_info=True)
            if place in self._held and self._clock.monotonic() >= place.usable_until:
                place.expire()
            return False
        if renewed is not None:
            place.lease = renewed
        elif place in self._held:
            place.lose()
        return True

    def _let_go(self, place: Place) -> asyncio.Task[None]:
        self._held.discard(place)
        return self._spawn(self._release(place.lease))

    async def _release(self, lease: Lease) -> None:
        """Release, or leave it to expire if the store is out of reach."""
        try:
            await self._leases.release(lease)
        except Exception:
            _log.warning("lease_release_failed", exc_info=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
