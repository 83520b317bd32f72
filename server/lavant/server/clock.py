"""Clocks, timers and periodic tasks. Time is passed in wherever it matters, so that tests control it."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self


class Timer(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Cancel the callback; no effect once it has run."""


class Clock(Protocol):
    """Source of time for the server."""

    def time_ns(self) -> int:
        """Return the wall time in nanoseconds since 1970; may jump."""

    def monotonic(self) -> float:
        """Return seconds that never jump back; comparable within this process only."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run a callback on the event loop once `monotonic()` reaches `when`."""


class SystemClock:
    """The machine's clocks."""

    def time_ns(self) -> int:
        """Return the wall time in nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return the event loop's time in seconds."""
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run a callback on the event loop once its time reaches `when`."""
        return asyncio.get_running_loop().call_at(when, callback)


class Periodic(ABC):
    """A task that runs every `interval` seconds of a clock within an `async with` block, never twice at a time."""

    def __init__(self, clock: Clock, interval: float) -> None:
        self._clock = clock
        self._interval = interval
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._schedule()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @abstractmethod
    async def run_once(self) -> None:
        """Do the work once; must not raise."""

    def due(self) -> None:
        """Run now, and again after the interval."""
        self._schedule()
        self.trigger()

    def trigger(self) -> None:
        """Start a run, unless the last one is still under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.run_once())

    def _schedule(self) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + self._interval, self.due)
