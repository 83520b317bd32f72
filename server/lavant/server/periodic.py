"""What a server looks after again and again."""

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from lavant.server.clock import Clock, Timer


class Periodic(ABC):
    """Looks every `interval` seconds of a clock's, from `async with` to its end; one look at a time."""

    def __init__(self, clock: Clock, interval: float) -> None:
        self._clock = clock
        self._interval = interval
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._schedule()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    @abstractmethod
    async def look(self) -> None:
        """Look; must not raise."""

    def due(self) -> None:
        """Look now, and again after the interval."""
        self._schedule()
        self.begin()

    def begin(self) -> None:
        """Look, unless the last look is not over yet."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self.look())

    def _schedule(self) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + self._interval, self.due)
