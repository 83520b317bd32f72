"""Whether a worker's evaluators can be reached, and how long it pauses while they cannot."""

import asyncio
import logging

from lavant.client._async.concurrency import Clock
from lavant.client._backoff import Backoff
from lavant.client._models import ErrorInfo

_FIRST_PAUSE = 1.0  # seconds
_LONGEST_PAUSE = 60.0
_PATIENCE = 10.0  # seconds of pauses after which a worker ends that is to end at all

_log = logging.getLogger("lavant.client")


class Outage:
    """Pauses of a worker whose evaluators are all unavailable: longer and longer, until one of them answers."""

    def __init__(self, rule_id: str, clock: Clock, *, ends: bool) -> None:
        self.error: ErrorInfo | None = None  # while there is an outage
        self.pause_seconds = 0.0
        self._rule_id = rule_id
        self._clock = clock
        self._ends = ends
        self._backoff = Backoff(initial=_FIRST_PAUSE, maximum=_LONGEST_PAUSE)
        self._began = self._paused = 0.0

    def begin(self, error: ErrorInfo, retry_after: float) -> None:
        """Note that all evaluators failed. The next pause lasts at least `retry_after` seconds."""
        if self.error is None:
            self._began = self._clock.monotonic()
            text = "rule %s: all evaluators are unavailable; this worker pauses and tries again by itself: %s"
            _log.warning(text, self._rule_id, error.message)
        self.error = error
        self.pause_seconds = max(self._backoff.next(), retry_after)

    def end(self) -> None:
        """Note that an evaluator answered."""
        if self.error is not None:
            self.error, self._paused = None, 0.0
            self._backoff.reset()
            took = self._clock.monotonic() - self._began
            _log.info("rule %s: evaluators answer again, after %.0f s", self._rule_id, took)

    async def pause(self) -> bool:
        """Wait before the next attempt; False at once if the work is to end instead."""
        self._paused += self.pause_seconds
        if self._ends and self._paused > _PATIENCE:
            return False
        await self._clock.sleep(self.pause_seconds)
        return True


class Gate:
    """Admits samples to evaluators that answer. While that is not known, one sample tries, and the others wait."""

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._is_open = outage.error is None
        self._is_shut = self._is_tried = False
        self._changed = asyncio.Event()

    @property
    def is_shut(self) -> bool:
        """Whether the evaluators are unavailable: nobody is admitted."""
        return self._is_shut

    async def enter(self) -> None:
        """Wait until evaluators may be asked."""
        while not self._is_open and (self._is_shut or self._is_tried):
            self._changed.clear()
            await self._changed.wait()
        self._is_tried = True

    def answered(self) -> None:
        """Note that an evaluator answered."""
        self._is_open, self._is_shut = True, False
        self._outage.end()
        self._changed.set()

    def undecided(self) -> None:
        """Note that no evaluator was asked after all: another sample may try."""
        self._is_tried = False
        self._changed.set()

    def failed(self, error: ErrorInfo, retry_after: float) -> bool:
        """Note that all evaluators failed; return whether that was news: the attempt counts only then."""
        is_news = self._outage.error is None
        if not self._is_shut:
            self._is_open, self._is_shut = False, True
            self._outage.begin(error, retry_after)
        return is_news
