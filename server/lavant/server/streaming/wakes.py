"""Waking of readers: a few in each iteration of the event loop, those of tenants and runs in turn."""

import asyncio
from collections.abc import Callable

from lavant.server.turns import FairQueue, Origin

_AT_ONCE = 32  # readers, which then work for about 3 ms


class WakeUps:
    """Wakes readers for tails and watches.

    A reader that is woken sends in the next iteration of the event loop: if all of a run's thousand readers did so in
    the same one, they would hold up the readers of all other runs, and the producers.
    """

    def __init__(self) -> None:
        self._waiting: FairQueue[Callable[[], None]] = FairQueue()
        self._left = _AT_ONCE
        self._is_counting = False

    def wake(self, origin: Origin, reader: Callable[[], None]) -> None:
        """Wake a reader now, or after those that wait; one that waits already is woken once."""
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._begin_iteration)
        if self._left and not self._waiting:
            self._left -= 1
            reader()
        else:
            self._waiting.add(origin, reader)

    def _begin_iteration(self) -> None:
        self._left = _AT_ONCE
        self._is_counting = bool(self._waiting)
        if self._is_counting:
            asyncio.get_running_loop().call_soon(self._begin_iteration)
        while self._left and self._waiting:
            self._left -= 1
            self._waiting.pop()()
