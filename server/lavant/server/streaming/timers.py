"""Coarse timers: those that are due at about the same time share one timer of the clock."""

from collections.abc import Callable
from functools import partial
from math import ceil

from lavant.server.clock import Clock, Timer

TICKS_PER_SECOND = 16


class _Tick:
    """Timers that are due within the same tick."""

    __slots__ = ("callbacks", "timer")

    def __init__(self, timer: Timer) -> None:
        self.callbacks: set[Callable[[], None]] = set()
        self.timer = timer


class CoarseTimers:
    """Timers that cost little when they are stopped before they are due, as nearly all of them are.

    A callback runs up to a tick after its time, together with the others of its tick. `keeps_ticks`: leave the clock's
    timer of a tick to run although all its callbacks were stopped, for timers that are stopped right after their start.
    """

    __slots__ = ("_keeps_ticks", "_ticks", "clock")

    def __init__(self, clock: Clock, *, keeps_ticks: bool = False) -> None:
        self.clock = clock
        self._keeps_ticks = keeps_ticks
        self._ticks: dict[int, _Tick] = {}

    def start(self, when: float, callback: Callable[[], None]) -> int:
        """Call back at a monotonic time, unless stopped before; returns the tick to stop it with."""
        index = ceil(when * TICKS_PER_SECOND)
        tick = self._ticks.get(index)
        if tick is None:
            timer = self.clock.call_at(index / TICKS_PER_SECOND, partial(self._run, index))
            tick = self._ticks[index] = _Tick(timer)
        tick.callbacks.add(callback)
        return index

    def stop(self, index: int, callback: Callable[[], None]) -> None:
        """Do not call back; no effect once it has run."""
        tick = self._ticks.get(index)
        if tick is not None:
            tick.callbacks.discard(callback)
            if not tick.callbacks and not self._keeps_ticks:
                tick.timer.cancel()
                del self._ticks[index]

    def _run(self, index: int) -> None:
        for callback in self._ticks.pop(index).callbacks:
            callback()
