"""Retention: deletion of runs some time after their end."""

from typing import NamedTuple

import structlog

from lavant.contract.limits import OWN_RUNS
from lavant.server.auth.audit_log import is_audit
from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.model import RunKey, is_terminal
from lavant.server.store.port import Engine, RunQuery
from lavant.server.store.tenants import Tenants
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import RunFilter

_INTERVAL = 60.0  # seconds
_LONGEST_PAUSE_NS = 3600 * 1_000_000_000  # until a tenant is read again in any case: a clock may have been set
_PAGE = 500  # runs
_ENDED = RunFilter(states=[state for state in RunState.values() if is_terminal(state)])

_log = structlog.get_logger(__name__)


class _Next(NamedTuple):
    """Earliest time at which a tenant's next run is to be deleted, and the position of its feed before that run."""

    due_ns: int
    position: int


class Retention(Periodic):
    """Deletes the runs of all tenants `seconds` after their end, within an `async with` block.

    All replicas that share a store may do so: each run is deleted once. A tenant is not read before the next of its
    runs is due, and one whose runs cannot be deleted holds up no other.
    """

    def __init__(self, engine: Engine, clock: Clock, seconds: float, tenants: Tenants) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._length_ns = round(seconds * 1e9)
        self._tenants = tenants
        self._next: dict[str, _Next] = {}

    async def run_once(self) -> None:
        """Delete the runs whose retention has passed."""
        tenants = self._tenants.names()
        self._next = {tenant: self._next[tenant] for tenant in tenants if tenant in self._next}
        for tenant in tenants:
            now_ns = self._clock.time_ns()
            following = self._next.get(tenant)
            if following is not None and 0 < following.due_ns - now_ns <= _LONGEST_PAUSE_NS:
                continue
            try:
                await self._delete_ended(tenant, now_ns, 0 if following is None else following.position)
            except ServiceError as error:
                _log.warning("retention_failed", tenant=tenant, error=error.message)
            except Exception:
                _log.exception("retention_failed", tenant=tenant)

    async def _delete_ended(self, tenant: str, now_ns: int, reached: int) -> None:
        """Delete a tenant's runs in the order of their ends: the last change of an ended run is its end."""
        query = RunQuery(tenant=tenant, limit=_PAGE, filter=_ENDED)
        deleted, next_due_ns = 0, now_ns + self._length_ns  # no run that is still open is due before
        is_over = False
        while not is_over:
            changes, position = await self._engine.list_changes(query, reached)
            is_over = position == reached
            for change in changes:
                due_ns = change.run.end_time.ToNanoseconds() + self._length_ns
                if due_ns > now_ns:
                    next_due_ns, is_over = due_ns, True
                    break
                deleted += await self._delete(RunKey(tenant, change.run.run_id))
                reached = change.position
            else:
                reached = position
        self._next[tenant] = _Next(min(next_due_ns, now_ns + _LONGEST_PAUSE_NS), reached)
        if deleted:
            _log.info("runs_deleted", tenant=tenant, count=deleted)

    async def _delete(self, key: RunKey) -> bool:
        if key.run_id.startswith(OWN_RUNS) and not is_audit(key.run_id):
            return False
        try:
            await self._engine.delete_run(key)
        except ServiceError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise
            return False  # another replica deleted it first
        return True
