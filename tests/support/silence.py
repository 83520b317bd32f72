"""Clocks for clients, on which those who wait for an answer have waited long enough when a test says so."""

import asyncio
from collections.abc import Callable

from lavant.client._async import concurrency as asynchronous
from lavant.client._sync import concurrency as blocking
from lavant.client._sync.alarms import Alarm


class AsyncSilence(asynchronous.Clock):
    """For `AsyncClient`. Time passes as it does, but nobody tires of waiting by themselves."""

    def __init__(self) -> None:
        self._waits: list[tuple[float, asyncio.Timeout]] = []

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        wait = asyncio.timeout(None)
        if seconds is not None:
            self._waits.append((seconds, wait))
        return wait

    def is_awaited(self, seconds: float) -> bool:
        """Return whether somebody waits who would do so for exactly so long; forgets who does not any more."""
        self._waits = [(length, wait) for length, wait in self._waits if self._is_on(wait)]
        return any(length == seconds for length, _ in self._waits)

    def fall(self, seconds: float) -> None:
        """Let those go who wait for so long."""
        assert self.is_awaited(seconds)
        for length, wait in self._waits:
            if length == seconds:
                wait.reschedule(0.0)

    def _is_on(self, wait: asyncio.Timeout) -> bool:
        try:
            wait.reschedule(None)
        except RuntimeError:
            return False
        return True


class Silence(blocking.Clock):
    """For `Client`."""

    def __init__(self) -> None:
        self._waits: list[tuple[float, Alarm]] = []

    def call_in(self, seconds: float, action: Callable[[], None]) -> Alarm:
        alarm = Alarm(action)
        self._waits.append((seconds, alarm))
        return alarm

    def is_awaited(self, seconds: float) -> bool:
        """Return whether somebody waits who would do so for exactly so long."""
        return any(length == seconds and alarm.action is not None for length, alarm in self._waits)

    def fall(self, seconds: float) -> None:
        """Let those go who wait for so long."""
        actions = [alarm.action for length, alarm in self._waits if length == seconds]
        assert any(actions)
        for action in filter(None, actions):
            action()
