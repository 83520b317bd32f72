"""The consumer leases that this process holds, renewed for as long as they are used."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self

import structlog

from lavant.server.clock import Clock, Timer
from lavant.server.errors import ServiceError, unavailable
from lavant.server.model import ConsumerKey
from lavant.server.store.port import Holder, Lease, Leases
from lavant.v1.error_pb2 import ErrorReason

RENEWAL_INTERVAL = 5.0  # seconds: a third of the leases' time to live
_RETRY_INTERVAL = 1.0  # seconds: several tries fit in before a lease can be used no longer

_log = structlog.get_logger(__name__)


class HeldLease:
    """A consumer's lease while this process holds it.

    `async with` releases it at the end of the block, before an exception of the block propagates. When the lease is
    lost, or could not be renewed in time, the block is cancelled wherever it is, and raises STREAM_DISPLACED or
    UNAVAILABLE. If `interrupts` returns False it is not cancelled: the next `check` raises.
    """

    __slots__ = ("_cancelling", "_interrupts", "_is_cancelled", "_leases", "_reason", "_task", "lease")
    lease: Lease

    def __init__(self, leases: "ConsumerLeases", interrupts: Callable[[], bool] = lambda: True) -> None:
        self._leases = leases
        self._interrupts = interrupts
        self._reason: ServiceError | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_cancelled = False

    @property
    def usable_until(self) -> float:
        """Monotonic time at which to stop sending unless the lease is renewed: well before anyone can acquire it."""
        return self.lease.valid_until - RENEWAL_INTERVAL

    @property
    def is_usable(self) -> bool:
        """Whether it is neither lost nor about to expire."""
        return self._reason is None and self._leases.clock.monotonic() < self.usable_until

    def check(self) -> None:
        """Raise STREAM_DISPLACED if the lease is lost, UNAVAILABLE if it could not be renewed in time."""
        if self._reason is not None:
            raise self._reason
        if self._leases.clock.monotonic() >= self.usable_until:
            raise _not_renewed()

    def lose(self) -> None:
        """Note that another stream has acquired the lease."""
        self._end(
            ServiceError(ErrorReason.ERROR_REASON_STREAM_DISPLACED, "a newer stream of this consumer has its lease")
        )

    def expire(self) -> None:
        """Note that others may acquire the lease soon: a write that is in progress must not end later."""
        self._end(_not_renewed())

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        reason = self._reason if self._is_cancelled else None
        if reason is not None and task is not None and task.uncancel() > self._cancelling:
            reason = None  # the call was cancelled as well: CancelledError propagates
        releasing = self._leases.start_release(self)
        # A call that is being cancelled waits for nothing: the first await here would be cancelled again.
        if releasing is not None and (error is None or reason is not None or isinstance(error, ServiceError)):
            await asyncio.shield(releasing)
        if reason is not None:
            raise reason from None

    def _end(self, reason: ServiceError) -> None:
        if self._reason is None:
            self._reason = reason
            if self._task is not None and self._interrupts():
                self._is_cancelled = self._task.cancel()


class ConsumerLeases:
    """Acquires, renews and releases consumers' leases.

    A lease whose renewals fail may be used until `HeldLease.usable_until`, and no longer.
    """

    def __init__(self, leases: Leases, clock: Clock) -> None:
        self.clock = clock
        self._leases = leases
        self._held: set[HeldLease] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Return how many leases are held."""
        return len(self._held)

    async def acquire(
        self, key: ConsumerKey, holder: Holder, interrupts: Callable[[], bool] = lambda: True
    ) -> HeldLease:
        """Acquire a consumer's lease, or raise CONSUMER_BUSY or STALE_ATTEMPT."""
        held = HeldLease(self, interrupts)
        held.lease = await self._leases.acquire(key, holder, held.lose)
        self._held.add(held)
        if self._timer is None:
            self._schedule_renewal()
        return held

    async def acquire_and_release(self, key: ConsumerKey, holder: Holder) -> int:
        """Return the fence of a lease that is acquired and released in one step, or raise as `acquire`."""
        return await self._leases.acquire_and_release(key, holder)

    async def release(self, held: HeldLease) -> None:
        """Let the consumer's next stream in, also if the caller is cancelled meanwhile. May be called again."""
        if (releasing := self.start_release(held)) is not None:
            await asyncio.shield(releasing)

    def start_release(self, held: HeldLease) -> asyncio.Task[None] | None:
        """Release without waiting; return the task that does it, or None if the lease was released before."""
        if held not in self._held:
            return None
        self._held.discard(held)
        return self._spawn(self._release(held.lease))

    async def close(self) -> None:
        """Stop renewing, and wait for all releases that have started."""
        if self._timer is not None:
            self._timer.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _schedule_renewal(self, seconds: float = RENEWAL_INTERVAL) -> None:
        self._timer = self.clock.call_at(self.clock.monotonic() + seconds, self._start_renewal)

    def _start_renewal(self) -> None:
        self._timer = None
        if self._held:
            self._schedule_renewal()
            self._spawn(self._renew_all())

    async def _renew_all(self) -> None:
        held = tuple(self._held)
        unanswered = set(range(len(held)))

        def answered(index: int, outcome: Lease | BaseException | None) -> None:
            if not isinstance(outcome, BaseException):
                unanswered.discard(index)
                self._renewed(held[index], outcome)
            else:
                _log.warning("lease_renewal_failed", exc_info=outcome)
                self._check(held[index])

        try:
            await self._leases.renew_all([one.lease for one in held], answered)
        except Exception:
            _log.warning("lease_renewal_failed", exc_info=True)
            for index in unanswered:
                self._check(held[index])
        if unanswered and self._held and self._timer is not None:
            self._timer.cancel()
            self._schedule_renewal(_RETRY_INTERVAL)

    def _renewed(self, held: HeldLease, lease: Lease | None) -> None:
        if lease is not None:
            held.lease = lease
        elif held in self._held:
            held.lose()

    def _check(self, held: HeldLease) -> None:
        """End the use of a lease that could not be renewed in time."""
        if held in self._held and self.clock.monotonic() >= held.usable_until:
            held.expire()

    async def _release(self, lease: Lease) -> None:
        try:
            await self._leases.release(lease)
        except Exception:  # it expires by itself
            _log.warning("lease_release_failed", exc_info=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _not_renewed() -> ServiceError:
    return unavailable("the consumer's lease could not be renewed; resume")
