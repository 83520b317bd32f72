# Made from _async/limits.py by client/unasync.py: change that one.
"""A stream's own time limits."""

from lavant.client._errors import IdleTimeout, StreamTimeout
from lavant.client._sync.concurrency import Clock


class Limits:
    """How long a stream may take in all, and how long it may go without an event, in seconds.

    The whole counts from the first wait; idleness only while the reader waits.
    """

    def __init__(self, timeout: float | None, idle_timeout: float | None, clock: Clock) -> None:
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._clock = clock
        self._deadline: float | None = None
        self._idle_deadline: float | None = None

    def start(self) -> None:
        """Note that the reader begins to wait for an event."""
        now = self._clock.monotonic()
        if self._timeout is not None and self._deadline is None:
            self._deadline = now + self._timeout
        if self._idle_timeout is not None:
            self._idle_deadline = now + self._idle_timeout

    def left(self) -> float | None:
        """Return how long the reader may wait still, None for ever."""
        ends = [end for end in (self._deadline, self._idle_deadline) if end is not None]
        return max(0.0, min(ends) - self._clock.monotonic()) if ends else None

    def check(self) -> None:
        """Raise StreamTimeout or IdleTimeout if that time has come."""
        now = self._clock.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise StreamTimeout(f"the stream did not end within {self._timeout:g} s")
        if self._idle_deadline is not None and now >= self._idle_deadline:
            raise IdleTimeout(f"no event for {self._idle_timeout:g} s")
