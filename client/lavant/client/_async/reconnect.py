"""Delays between the calls that continue one stream."""

from collections.abc import Awaitable, Callable

from lavant.client._async.concurrency import Clock
from lavant.client._wire.status import Backoff, is_cut
from lavant.client.errors import LavantError, StreamCut

LAST_CALL = 0.5  # seconds; the shortest time limit of a call
STEADY = 1.0  # seconds; calls that stay open for so long are few, whatever they bring


class Reconnect:
    """Delays between the calls of one session, each longer than the last until a call makes progress.

    A call makes progress if it brings something new, or connects and is open for a second. To connect is not enough,
    because a server may open and end every call at once. Stops `patience` seconds after the cut (None: never) unless a
    call connects: with StreamCut if one had connected before, else with the error itself. `sleep` replaces the clock's.
    """

    def __init__(
        self,
        backoff: Backoff,
        clock: Clock,
        *,
        patience: float | None = None,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        self._backoff = backoff
        self._sleep = sleep or clock.sleep
        self._patience = patience
        self._clock = clock
        self._worked = False
        self._cut_time: float | None = None
        self._call_time = 0.0
        self._is_connected = self._has_progressed = False

    def begin_call(self) -> None:
        """Note that another call begins."""
        self._call_time = self._clock.monotonic()
        self._is_connected = self._has_progressed = False

    def connected(self) -> None:
        """Note that the call has connected."""
        self._is_connected = self._worked = True
        self._cut_time = None

    def progress(self) -> None:
        """Note that the call has brought something new."""
        self.connected()
        self._has_progressed = True

    def made_progress(self) -> bool:
        """Return whether the call has made progress."""
        is_steady = self._is_connected and self._clock.monotonic() - self._call_time >= STEADY
        return self._has_progressed or is_steady

    def left(self) -> float | None:
        """Return how long the call after a cut may take to connect; None without a cut or a limit."""
        if self._patience is None or self._cut_time is None:
            return None
        return max(LAST_CALL, self._cut_time + self._patience - self._clock.monotonic())

    async def pause(self, error: LavantError, at_most: float | None = None) -> None:
        """Wait before the next call, `at_most` seconds. Raises errors that a retry cannot solve."""
        if not is_cut(error):
            raise error
        if self.made_progress():
            self._backoff.reset()
        delay = self._backoff.next(error.retry_after)
        is_first = self._cut_time is None
        self._cut_time = self._clock.monotonic() if self._cut_time is None else self._cut_time
        if self._patience is not None:
            left = self._cut_time + self._patience - self._clock.monotonic()
            if left <= 0 and not is_first:
                self._give_up(error)
            delay = min(delay, max(0.0, left))
        await self._sleep(delay if at_most is None else max(0.0, min(delay, at_most)))

    def _give_up(self, error: LavantError) -> None:
        if not self._worked:
            raise error
        raise StreamCut(f"not resumed within {self._patience:g} s: {error.message}", code=error.code) from error
