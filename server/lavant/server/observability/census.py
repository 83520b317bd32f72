"""Counts of rules, samples and alerts for metrics, taken by one of the servers that share a store."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.evaluation.rules import Rules, rule_view, suppress_not_found
from lavant.server.model import SERVER_TENANT, RunKey, beside, callers_tenant
from lavant.server.store.port import Engine
from lavant.server.streaming.leadership import Leadership
from lavant.server.streaming.leases import ConsumerLeases
from lavant.server.tasks import for_each
from lavant.v1.rule_pb2 import AlertState, AlertStatus, Rule

_INTERVAL = 10.0  # seconds between two counts
_PAUSE = 60.0  # seconds between two checks of a tenant at rest, whose alerts change with the time alone
_LONGEST = 1800.0  # seconds between two counts of a tenant at rest
_AT_ONCE = 4  # tenants that are counted together

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Count:
    """The last counts of one tenant.

    `oldest_ns` is when the oldest waiting run ended. `at` is when the tenant was counted, `checked_at` when its alerts
    were; `watched` has the rules with alerts.
    """

    at: float
    checked_at: float = 0.0
    watched: list[Rule] = field(default_factory=list)
    rules: int = 0
    waiting: int = 0
    delayed: int = 0
    held: int = 0
    oldest_ns: int | None = None
    firing: int = 0
    unable: int = 0


class Census(Periodic):
    """Counts the tenants that have rules, from `async with` to its end, unless another server does.

    Tenants with samples are counted every 10 s; others after a change of theirs. The alerts of those at rest are
    checked every minute. `counts` has the tenants with rules; it is empty where another server counts.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        leases: ConsumerLeases,
        rules: Rules,
        rules_of: Callable[[str], Awaitable[Iterable[Rule]]],
        statuses_of: Callable[[str, Rule], Awaitable[Iterable[AlertStatus]]],
        tenants_with_rules: Callable[[], Sequence[str]],
    ) -> None:
        super().__init__(clock, _INTERVAL)
        self.counts: dict[str, Count] = {}
        self._rules = rules
        self._rules_of = rules_of
        self._statuses_of = statuses_of
        self._tenants_with_rules = tenants_with_rules
        self._changed: set[str] = set()
        self._leadership = Leadership(leases, beside(SERVER_TENANT, "census"), "lavant.census")
        self._watch = engine.watch_tenants(lambda name: self._changed.add(callers_tenant(name)))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        self._watch.close()
        await self._leadership.release()

    async def run_once(self) -> None:
        """Count, if this server holds the lease to do so."""
        try:
            is_leading = await self._leadership.acquire()
        except ServiceError as error:
            _log.debug("rules_not_counted", error=error.message)
            return
        except Exception:
            _log.exception("rules_not_counted")
            return
        tenants = set(self._tenants_with_rules() if is_leading else ())
        self._changed &= tenants
        self.counts = {tenant: count for tenant, count in self.counts.items() if tenant in tenants}
        await for_each(self._count, filter(self._is_due, tenants), at_once=_AT_ONCE)

    def _is_due(self, tenant: str) -> bool:
        count = self.counts.get(tenant)
        if count is None or tenant in self._changed or count.waiting or count.held:
            return True
        return self._clock.monotonic() - count.checked_at >= _PAUSE

    def _is_at_rest(self, tenant: str, count: Count) -> bool:
        """Return whether only alerts can have changed. Runs that wait may be selected without a change."""
        has_work = count.waiting or count.held or count.oldest_ns is not None
        return not has_work and tenant not in self._changed and self._clock.monotonic() - count.at < _LONGEST

    async def _count(self, tenant: str) -> None:
        known, now = self.counts.get(tenant), self._clock.monotonic()
        is_at_rest = known is not None and self._is_at_rest(tenant, known)
        self._changed.discard(tenant)
        try:
            count = known if known is not None and is_at_rest else await self._counted(tenant)
            await self._check_alerts(tenant, count)
        except Exception as error:
            self._changed.add(tenant)
            if isinstance(error, ServiceError):
                _log.debug("rules_not_counted", tenant=tenant, error=error.message)
            else:
                _log.exception("rules_not_counted", tenant=tenant)
        else:
            count.checked_at = now
            self.counts[tenant] = count

    async def _counted(self, tenant: str) -> Count:
        count = Count(self._clock.monotonic())
        for rule in await self._rules_of(tenant):
            with suppress_not_found():
                await self._add(count, RunKey(tenant, rule.rule_id))
        return count

    async def _check_alerts(self, tenant: str, count: Count) -> None:
        """Count the alerts by their states; none while the scores cannot be read."""
        states: Counter[AlertState.ValueType] = Counter()
        for rule in count.watched:
            states.update(status.state for status in await self._statuses_of(tenant, rule))
        count.firing = states[AlertState.ALERT_STATE_FIRING]
        count.unable = states[AlertState.ALERT_STATE_CANNOT_FIRE]

    async def _add(self, count: Count, key: RunKey) -> None:
        with self._rules.sampler(key) as sampler:
            await sampler.coordinator.read()
            view = rule_view(sampler.coordinator)
            oldest_ns = await sampler.oldest_ns()
        if view.alerts:
            count.watched.append(view)
        count.rules += 1
        count.waiting += view.progress.samples_waiting
        count.delayed += view.progress.samples_delayed
        count.held += view.progress.samples_held
        if oldest_ns is not None:
            count.oldest_ns = oldest_ns if count.oldest_ns is None else min(count.oldest_ns, oldest_ns)
