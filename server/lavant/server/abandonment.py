"""Ends the runs whose producers fell silent."""

import asyncio
from types import TracebackType

import structlog

from lavant.server.clock import Clock, Timer
from lavant.server.errors import LavantError
from lavant.server.store.port import Engine

_INTERVAL = 1.0  # seconds between two looks
_GAP_NS = 2_000_000_000  # between two looks: in a longer one the server did not listen, or the clock was set

_log = structlog.get_logger(__name__)


class AbandonmentWatch:
    """Looks for silent producers, from `async with` to its end.

    No producer could be heard while the server was down or stopped, so silence counts from its start at the
    earliest. Where the wall clock is set, it counts anew: better a late end than the end of a run at work.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._listening_since_ns = self._looked_ns = clock.time_ns()
        self._timer: Timer | None = None
        self._look: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "AbandonmentWatch":
        self._schedule()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            await self._look

    def _schedule(self) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + _INTERVAL, self._start_look)

    def _start_look(self) -> None:
        self._schedule()
        now_ns = self._clock.time_ns()
        if not 0 <= now_ns - self._looked_ns <= _GAP_NS:
            self._listening_since_ns = now_ns
        self._looked_ns = now_ns
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._end_silent_runs())

    async def _end_silent_runs(self) -> None:
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
