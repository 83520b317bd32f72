"""A clock that stands still until a test moves it."""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

_SAME = 1e-6
_LIMIT = 20.0


class _ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Implements the server's `Clock`; begins in the year 2023, at monotonic time 1,000."""

    def __init__(self, *, time_ns: int = 1_700_000_000_000_000_000, monotonic: float = 1_000.0) -> None:
        self._time_ns = time_ns
        self._monotonic = monotonic
        self._order = count()
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._waiters: list[tuple[float, asyncio.Future[None]]] = []

    def time_ns(self) -> int:
        """Wall time in nanoseconds since 1970."""
        return self._time_ns

    def monotonic(self) -> float:
        """Seconds that never jump back."""
        return self._monotonic

    def call_at(self, when: float, callback: Callable[[], None]) -> _ManualTimer:
        """Run a callback within the `advance` that reaches its time."""
        timer = _ManualTimer(callback)
        heappush(self._timers, (when, next(self._order), timer))
        for wanted, waiter in self._waiters:
            if abs(wanted - when) < _SAME and not waiter.done():
                waiter.set_result(None)
        return timer

    async def awaited(self, seconds: float) -> None:
        """Wait until somebody waits for the time that is so many seconds away.

        Choose times that nothing else is due at: the server has timers of whole seconds of its own.
        """
        when = self._monotonic + seconds
        if any(abs(due - when) < _SAME for due, _, timer in self._timers if timer.callback is not None):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((when, waiter))
        async with asyncio.timeout(_LIMIT):
            await waiter

    def due(self, seconds: float, *, within: float = 1e-3) -> bool:
        """Return whether a callback waits for about the time so many seconds from now."""
        end = self._monotonic + seconds
        return any(abs(when - end) < within and timer.callback is not None for when, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Let time pass, and run what is due in the order of its time."""
        end = self._monotonic + seconds
        end_ns = self._time_ns + round(seconds * 1e9)
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heappop(self._timers)
            self._move(max(when, self._monotonic))
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._monotonic, self._time_ns = end, end_ns

    def jump(self, seconds: float) -> None:
        """Set the wall clock alone forward, or back."""
        self._time_ns += round(seconds * 1e9)

    def _move(self, when: float) -> None:
        self._time_ns += round((when - self._monotonic) * 1e9)
        self._monotonic = when
