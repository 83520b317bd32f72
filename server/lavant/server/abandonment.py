"""Ends the runs whose producers fell silent."""

import structlog

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.periodic import Periodic
from lavant.server.store.port import Engine

_INTERVAL = 1.0  # seconds between two looks
_GAP_NS = 2_000_000_000  # between two looks: in a longer one the server did not listen, or the clock was set

_log = structlog.get_logger(__name__)


class AbandonmentWatch(Periodic):
    """Looks for silent producers, from `async with` to its end.

    No producer could be heard while the server was down or stopped, so silence counts from its start at the
    earliest. Where the wall clock is set, it counts anew: better a late end than the end of a run at work.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._listening_since_ns = self._looked_ns = clock.time_ns()

    def due(self) -> None:
        """Look; after a gap, silence counts from now on."""
        now_ns = self._clock.time_ns()
        if not 0 <= now_ns - self._looked_ns <= _GAP_NS:
            self._listening_since_ns = now_ns
        self._looked_ns = now_ns
        super().due()

    async def look(self) -> None:
        """End the runs of silent producers."""
        try:
            ended = await self._engine.abandon_silent_runs(self._listening_since_ns)
        except LavantError as error:
            _log.warning("abandonment_failed", error=error.message)
            return
        except Exception:
            _log.exception("abandonment_failed")
            return
        for key in ended:
            _log.info("run_abandoned", tenant=key.tenant, run_id=key.run_id)
