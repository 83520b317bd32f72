# Made from _async/reconnect.py by client/unasync.py: change that one.
"""Whether and when to call again after a call was cut off."""

from collections.abc import Callable

from lavant.client._backoff import Backoff
from lavant.client._errors import LavantError, StreamCut
from lavant.client._status import is_cut
from lavant.client._sync.concurrency import Clock

LAST_CALL = 0.5  # seconds that a call is given at least


class Reconnect:
    """Waits between the calls of one session, longer and longer, until there is progress.

    Gives up `patience` seconds after the cut: with StreamCut once something had worked, else with
    the error itself. None: never. `sleep` is how to wait; by default as the clock does.
    """

    def __init__(
        self,
        backoff: Backoff,
        clock: Clock,
        *,
        patience: float | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._backoff = backoff
        self._sleep = sleep or clock.sleep
        self._patience = patience
        self._clock = clock
        self._worked = False
        self._cut_time: float | None = None

    def progress(self) -> None:
        """Note that the connection works."""
        if self._cut_time is not None or not self._worked:
            self._worked, self._cut_time = True, None
            self._backoff.reset()

    def left(self) -> float | None:
        """Return how long the call after a cut may take to make progress; None: nothing was cut, or for ever."""
        if self._patience is None or self._cut_time is None:
            return None
        return max(LAST_CALL, self._cut_time + self._patience - self._clock.monotonic())

    def pause(self, error: LavantError, at_most: float | None = None) -> None:
        """Wait before the next call, `at_most` seconds. Raises the error if calling again is no use."""
        if not is_cut(error):
            raise error
        delay = self._backoff.next(error.retry_after)
        is_first = self._cut_time is None
        self._cut_time = self._clock.monotonic() if self._cut_time is None else self._cut_time
        if self._patience is not None:
            left = self._cut_time + self._patience - self._clock.monotonic()
            if left <= 0 and not is_first:
                self._give_up(error)
            delay = min(delay, max(0.0, left))
        self._sleep(delay if at_most is None else max(0.0, min(delay, at_most)))

    def _give_up(self, error: LavantError) -> None:
        if not self._worked:
            raise error
        raise StreamCut(f"not resumed within {self._patience:g} s: {error.message}", code=error.code) from error
