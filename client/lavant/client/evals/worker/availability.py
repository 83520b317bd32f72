"""Availability of a worker's evaluators: pauses while all are unavailable, and admission of samples."""

import asyncio
import logging

from lavant.client._async.concurrency import Clock
from lavant.client._wire.status import Backoff
from lavant.client.models import ErrorInfo

_FIRST_PAUSE = 1.0  # seconds
_LONGEST_PAUSE = 60.0
_MAX_PAUSED = 10.0  # seconds of pauses after which a worker stops that stops when caught up

_log = logging.getLogger("lavant.client")


class Pauses:
    """Pauses of a worker whose evaluators are all unavailable; each is longer, until one of them answers."""

    def __init__(self, rule_id: str, clock: Clock, *, limited: bool) -> None:
        self.error: ErrorInfo | None = None  # while all evaluators are unavailable
        self.seconds = 0.0  # of the next pause
        self._rule_id = rule_id
        self._clock = clock
        self._limited = limited
        self._backoff = Backoff(initial=_FIRST_PAUSE, maximum=_LONGEST_PAUSE)
        self._began = self._paused = 0.0

    def begin(self, error: ErrorInfo, retry_after: float) -> None:
        """Record that all evaluators failed. The next pause lasts at least `retry_after` seconds."""
        if self.error is None:
            self._began = self._clock.monotonic()
            text = "rule %s: all evaluators are unavailable; this worker pauses and retries: %s"
            _log.warning(text, self._rule_id, error.message)
        self.error = error
        self.seconds = max(self._backoff.next(), retry_after)

    def end(self) -> None:
        """Record that an evaluator answered."""
        if self.error is not None:
            self.error, self._paused = None, 0.0
            self._backoff.reset()
            took = self._clock.monotonic() - self._began
            _log.info("rule %s: evaluators are available again, after %.0f s", self._rule_id, took)

    async def pause(self) -> bool:
        """Wait before the next attempt; return False at once if the limit of all pauses is reached."""
        self._paused += self.seconds
        if self._limited and self._paused > _MAX_PAUSED:
            return False
        await self._clock.sleep(self.seconds)
        return True


class Admission:
    """Circuit breaker: admits samples while evaluators answer. While that is unknown, one sample tries alone."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._is_open = pauses.error is None
        self._is_closed = self._is_trying = False
        self._changed = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether the evaluators are unavailable, so that no sample is admitted."""
        return self._is_closed

    async def enter(self) -> None:
        """Wait until a sample is admitted."""
        while not self._is_open and (self._is_closed or self._is_trying):
            self._changed.clear()
            await self._changed.wait()
        self._is_trying = True

    def succeed(self) -> None:
        """Record that an evaluator answered."""
        self._is_open, self._is_closed = True, False
        self._pauses.end()
        self._changed.set()

    def leave(self) -> None:
        """Record that no evaluator was called; another sample may try."""
        self._is_trying = False
        self._changed.set()

    def fail(self, error: ErrorInfo, retry_after: float) -> bool:
        """Record that all evaluators failed; return whether this is the first failure, which counts as an attempt."""
        is_first = self._pauses.error is None
        if not self._is_closed:
            self._is_open, self._is_closed = False, True
            self._pauses.begin(error, retry_after)
        return is_first
