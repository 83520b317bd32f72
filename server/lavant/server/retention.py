"""Deletes runs some time after their end."""

import structlog

from lavant.contract.limits import OWN_RUNS
from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.model import RunKey, is_terminal
from lavant.server.periodic import Periodic
from lavant.server.store.port import Engine, RunQuery
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.run_pb2 import Run, RunState
from lavant.v1.run_service_pb2 import RunFilter

_INTERVAL = 60.0  # seconds between two looks
_PAGE = 500  # runs
_TENANT = "default"
_ENDED = RunFilter(states=[state for state in RunState.values() if is_terminal(state)])

_log = structlog.get_logger(__name__)


class Retention(Periodic):
    """Deletes what ended longer ago than `seconds`, from `async with` to its end.

    Replicas that share a store may all do it: each run is deleted once.
    """

    def __init__(self, engine: Engine, clock: Clock, seconds: float) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._seconds = seconds

    async def look(self) -> None:
        """Delete the runs whose time is over."""
        try:
            deleted = await self._delete_all_before(self._clock.time_ns() - round(self._seconds * 1e9))
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
        if run.run_id.startswith(OWN_RUNS):
            return False
        try:
            await self._engine.delete_run(RunKey(_TENANT, run.run_id))
        except LavantError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise
            return False  # somebody else was faster
        return True
