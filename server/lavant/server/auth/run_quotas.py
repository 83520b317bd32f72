"""Quotas of runs and of what is published to them."""

from asyncio import Future
from collections.abc import Callable
from typing import TypeAlias

import structlog

from lavant.contract.limits import OWN_RUNS
from lavant.server.auth.label_keys import LabelKeys
from lavant.server.auth.principal import Principal
from lavant.server.auth.quotas import Quota, Quotas, QuotaUse
from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.model import is_terminal
from lavant.server.store.port import Engine, RunQuery
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import RunSettings, RunState
from lavant.v1.run_service_pb2 import RunFilter

_Done: TypeAlias = Callable[["Future[BatchReceipt]"], None]

_INTERVAL = 5.0  # seconds between two counts of open runs
_PAGE = 1_000
_OPEN = RunFilter(states=[state for state in RunState.values() if state and not is_terminal(state)])

_log = structlog.get_logger(__name__)


class RunQuotas(Periodic):
    """Admits runs and batches within the quotas of their callers, from `async with` to its end.

    Open runs are counted in the store, every five seconds while they change, and by what this server does in between:
    several servers of one store may together exceed the limit by what they create in that time.
    """

    def __init__(self, engine: Engine, clock: Clock, quotas: Quotas, label_keys: LabelKeys) -> None:
        super().__init__(clock, _INTERVAL)
        self._label_keys = label_keys
        self._engine = engine
        self._quotas = quotas
        self._changed: dict[str, QuotaUse] = {}  # tenants whose open runs may have changed since they were counted
        self._counted: set[str] = set()

    def admit_run(self, principal: Principal, settings: RunSettings) -> None:
        """Count a run that is about to be created. Raises QUOTA_EXCEEDED."""
        if settings.labels:
            self._label_keys.admit(principal.tenant, settings.labels)
        if usages := self._quotas.usages_of(principal):
            self._admit_run(principal.tenant, usages)
            self._quotas.take(usages, (0, 0, 1))
            self._count(usages, 1)

    def admit_batch(self, principal: Principal, batch: ProducerBatch, size: int | None) -> _Done | None:
        """Count a batch that is about to be appended; `size` is the number of its bytes, None if that is not known.

        Empty batches are always admitted: they keep a run alive. A run may end whatever its tenant has stored, so that
        it can be deleted. Returns what is called with the receipt. Raises QUOTA_EXCEEDED.
        """
        if batch.HasField("create") and batch.create.labels:
            self._label_keys.admit(principal.tenant, batch.create.labels)
        usages = self._quotas.usages_of(principal)
        count = len(batch.events) if usages else 0
        if not count:
            return None
        size = batch.ByteSize() if size is None else size
        if count > 1 or not batch.events[0].HasField("run_finished"):
            self._quotas.check_stored(usages, self._engine.stored_bytes(principal.tenant), size)
        creates = batch.HasField("create") and batch.first_producer_sequence == 1
        if creates:
            self._admit_run(principal.tenant, usages)
        self._quotas.take(usages, (count, size, int(creates)))
        change = creates - batch.events[-1].HasField("run_finished")
        return (lambda done: self._count_stored(usages, change, done)) if change else None

    async def run_once(self) -> None:
        """Count the open runs of the tenants that have changed some."""
        changed, self._changed = self._changed, {}
        for tenant, usage in changed.items():
            try:
                usage.counts[Quota.OPEN_RUNS] = await self._count_open(tenant, usage.limits.open_runs or 0)
            except ServiceError as error:
                _log.debug("open_runs_not_counted", tenant=tenant, error=error.message)
            except Exception:
                _log.exception("open_runs_not_counted", tenant=tenant)

    async def _count_open(self, tenant: str, limit: int) -> int:
        """Return the number of a tenant's open runs; more than the limit need not be counted."""
        query = RunQuery(tenant=tenant, limit=_PAGE, filter=_OPEN)
        count, before = 0, None
        while count < limit:
            page = await self._engine.list_runs(query, before)
            count += sum(not run.run_id.startswith(OWN_RUNS) for run in page.runs)
            before = page.next_position
            if before is None:
                break
        return count

    def _admit_run(self, tenant: str, usages: tuple[QuotaUse, ...]) -> None:
        for usage in usages:
            if usage.limits.open_runs is not None and usage.subject == f"tenant/{tenant}":
                self._changed[tenant] = usage
                if tenant not in self._counted:
                    self._counted.add(tenant)
                    self.trigger()
        self._quotas.check_count(usages, Quota.OPEN_RUNS)

    def _count_stored(self, usages: tuple[QuotaUse, ...], change: int, done: "Future[BatchReceipt]") -> None:
        if not done.cancelled() and done.exception() is None and not done.result().duplicate:
            self._count(usages, change)

    def _count(self, usages: tuple[QuotaUse, ...], change: int) -> None:
        for usage in usages:
            usage.counts[Quota.OPEN_RUNS] = max(0, usage.counts[Quota.OPEN_RUNS] + change)
