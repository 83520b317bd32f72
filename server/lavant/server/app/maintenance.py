"""Periodic maintenance of the store: the end of abandoned runs."""

import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.store.port import Engine

_ABANDONMENT_INTERVAL = 1.0  # seconds
_GAP_NS = 2_000_000_000  # a longer pause between two checks means that the server was stopped, or the clock was set

_log = structlog.get_logger(__name__)


class AbandonmentWatch(Periodic):
    """Ends the runs of silent producers as ABANDONED, within an `async with` block.

    No producer can be received while the server is down or stopped, so silence counts from the start of the
    process at the earliest. After the wall clock is set it counts from then on: a late end is better than
    the end of a run at work.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(clock, _ABANDONMENT_INTERVAL)
        self._engine = engine
        self._listening_since_ns = self._checked_ns = clock.time_ns()

    def due(self) -> None:
        """Run now; after a gap, silence counts from now on."""
        now_ns = self._clock.time_ns()
        if not 0 <= now_ns - self._checked_ns <= _GAP_NS:
            self._listening_since_ns = now_ns
        self._checked_ns = now_ns
        super().due()

    async def run_once(self) -> None:
        """End the runs of silent producers."""
        try:
            ended = await self._engine.abandon_silent_runs(self._listening_since_ns)
        except ServiceError as error:
            _log.warning("abandonment_failed", error=error.message)
            return
        except Exception:
            _log.exception("abandonment_failed")
            return
        for key in ended:
            _log.info("run_abandoned", tenant=key.tenant, run_id=key.run_id)
