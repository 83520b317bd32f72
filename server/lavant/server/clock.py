"""Time, passed in wherever it matters, so that tests can hold it still."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget the callback; harmless once it has run."""


class Clock(Protocol):
    """Where the server gets the time from."""

    def time_ns(self) -> int:
        """Wall time in nanoseconds since 1970; may jump."""

    def monotonic(self) -> float:
        """Seconds that never jump back; comparable within this process only."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run a callback on the event loop once `monotonic()` reaches `when`."""


class SystemClock:
    """The machine's clocks."""

    def time_ns(self) -> int:
        """Wall time in nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """The event loop's time."""
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run a callback on the event loop once its time reaches `when`."""
        return asyncio.get_running_loop().call_at(when, callback)
