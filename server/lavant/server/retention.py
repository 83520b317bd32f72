"""Deletes runs some time after their end."""

import asyncio
from types import TracebackType

import structlog

from lavant.server.clock import Clock, Timer
from lavant.server.errors import LavantError
from lavant.server.model import RunKey, is_terminal
from lavant.server.store.port import Engine, RunQuery
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.run_pb2 import Run, RunState
from lavant.v1.run_service_pb2 import RunFilter

INTERVAL = 60.0  # seconds between two looks
_PAGE = 500  # runs
_TENANT = "default"
_ENDED = RunFilter(states=[state for state in RunState.values() if is_terminal(state)])

_log = structlog.get_logger(__name__)


class Retention:
    """Deletes what ended longer ago than `seconds`, from `async with` to its end; None: nothing, ever.

    Replicas that share a store may all do it: each run is deleted once.
    """

    def __init__(self, engine: Engine, clock: Clock, seconds: float | None) -> None:
        self._engine = engine
        self._clock = clock
        self._seconds = seconds
        self._timer: Timer | None = None
        self._look: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Retention":
        if self._seconds is not None:
            self._schedule()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait((self._look,))

    def _schedule(self) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + INTERVAL, self._start_look)

    def _start_look(self) -> None:
        self._schedule()
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._delete_old_runs())

    async def _delete_old_runs(self) -> None:
        try:
            deleted = await self._delete_all_before(self._clock.time_ns() - round((self._seconds or 0) * 1e9))
        except LavantError as error:
            _log.warning("retention_failed", error=error.message)
        except Exception:
            _log.exception("retention_failed")
        else:
            if deleted:
                _log.info("runs_deleted", count=deleted)

    async def _delete_all_before(self, cutoff_ns: int) -> int:
        """Delete ended runs in the order of their ends: the last change of each was its end."""
        query = RunQuery(tenant=_TENANT, limit=_PAGE, filter=_ENDED)
        deleted = reached = 0
        while True:
            changes, position = await self._engine.list_changes(query, reached)
            for change in changes:
                if change.run.end_time.ToNanoseconds() > cutoff_ns:
                    return deleted
                deleted += await self._delete(change.run)
            if position == reached:
                return deleted
            reached = position

    async def _delete(self, run: Run) -> bool:
        try:
            await self._engine.delete_run(RunKey(_TENANT, run.run_id))
        except LavantError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise
            return False  # somebody else was faster
        return True
