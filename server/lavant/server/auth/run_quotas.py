"""Quotas of runs and of what is published to them."""

from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

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


@dataclass(slots=True)
class _Changes:
    """Runs that a tenant has begun and ended since its open runs were counted: the list of runs may lack them."""

    usage: QuotaUse
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)


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
        self._changed: dict[str, _Changes] = {}  # by tenant, since its runs were counted
        self._counting: dict[str, _Changes] = {}  # by tenant, of those that are being counted
        self._counted: set[str] = set()

    def admit_run(self, principal: Principal, run_id: str, settings: RunSettings) -> None:
        """Count a run that is about to be created. Raises QUOTA_EXCEEDED."""
        label_keys = self._label_keys.check(principal.tenant, settings.labels) if settings.labels else ()
        if usages := self._quotas.usages_of(principal):
            self._admit_run(principal.tenant, usages)
            self._quotas.take(usages, (0, 0, 1))
            self._count(principal.tenant, run_id, usages, 1)
        self._label_keys.count(principal.tenant, label_keys)

    def admit_batch(self, principal: Principal, batch: ProducerBatch, size: int | None) -> _Done | None:
        """Count a batch that is about to be appended; `size` is the number of its bytes, None if that is not known.

        Empty batches are always admitted: they keep a run alive. A run may end whatever its tenant has stored, so that
        it can be deleted. Returns what is called with the receipt. Raises QUOTA_EXCEEDED.
        """
        has_labels = batch.HasField("create") and batch.create.labels
        label_keys = self._label_keys.check(principal.tenant, batch.create.labels) if has_labels else ()
        done = self._admit_events(principal, batch, size)
        self._label_keys.count(principal.tenant, label_keys)
        return done

    def _admit_events(self, principal: Principal, batch: ProducerBatch, size: int | None) -> _Done | None:
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
        if not change:
            return None
        tenant, run_id = principal.tenant, batch.run_id
        return lambda done: self._count_stored(tenant, run_id, usages, change, done)

    async def run_once(self) -> None:
        """Count the open runs of the tenants that have changed some."""
        self._counting, self._changed = self._changed, {}
        for tenant, changes in self._counting.items():
            usage = changes.usage
            try:
                listed = await self._open_runs(tenant, usage.limits.open_runs or 0)
                usage.counts[Quota.OPEN_RUNS] = len((listed | changes.begun) - changes.ended)
            except ServiceError as error:
                _log.debug("open_runs_not_counted", tenant=tenant, error=error.message)
            except Exception:
                _log.exception("open_runs_not_counted", tenant=tenant)
        self._counting = {}

    async def _open_runs(self, tenant: str, limit: int) -> set[str]:
        """Return the IDs of a tenant's open runs; of more than the limit, not all."""
        query = RunQuery(tenant=tenant, limit=_PAGE, filter=_OPEN, system_runs=False)
        found: set[str] = set()
        before = None
        while len(found) < limit:
            page = await self._engine.list_runs(query, before)
            found.update(run.run_id for run in page.runs)
            before = page.next_position
            if before is None:
                break
        return found

    def _admit_run(self, tenant: str, usages: tuple[QuotaUse, ...]) -> None:
        for usage in usages:
            if usage.limits.open_runs is not None and usage.subject == f"tenant/{tenant}":
                self._changed.setdefault(tenant, _Changes(usage))
                if tenant not in self._counted:
                    self._counted.add(tenant)
                    self.trigger()
        self._quotas.check_count(usages, Quota.OPEN_RUNS)

    def _count_stored(
        self, tenant: str, run_id: str, usages: tuple[QuotaUse, ...], change: int, done: "Future[BatchReceipt]"
    ) -> None:
        if not done.cancelled() and done.exception() is None and not done.result().duplicate:
            self._count(tenant, run_id, usages, change)

    def _count(self, tenant: str, run_id: str, usages: tuple[QuotaUse, ...], change: int) -> None:
        for changes in (self._changed.get(tenant), self._counting.get(tenant)):
            if changes is not None:
                (changes.begun if change > 0 else changes.ended).add(run_id)
        for usage in usages:
            usage.counts[Quota.OPEN_RUNS] = max(0, usage.counts[Quota.OPEN_RUNS] + change)
