"""Periodic comparison of rules' scores with the thresholds of their alerts."""

from collections.abc import Awaitable, Callable, Sequence

import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.tenant import INTERVAL, TenantAlerts
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.tasks import for_each
from lavant.v1.rule_pb2 import Rule

_AT_ONCE = 8  # tenants that are checked together

RulesOf = Callable[[str], Awaitable[Sequence[Rule]]]  # a tenant's rules, at least those with alerts

_log = structlog.get_logger(__name__)


class Alerting(Periodic):
    """Compares scores with thresholds, and appends changes to the logs of alerts; from `async with` to its end.

    All replicas compare; each change is appended by one of them, once. `allowed` returns whether alerts may be posted
    to a webhook's address. A tenant whose alerts cannot be checked holds up no other.
    """

    def __init__(
        self,
        *,
        index: ScoreIndex,
        follower: Follower,
        clock: Clock,
        logs: AlertLogs,
        rules_of: RulesOf,
        allowed: Callable[[str], bool],
    ) -> None:
        super().__init__(clock, INTERVAL)
        self._index = index
        self._follower = follower
        self._logs = logs
        self._rules_of = rules_of
        self._allowed = allowed
        self._tenants: dict[str, TenantAlerts] = {}
        self._failing: set[str] = set()  # tenants

    async def run_once(self) -> None:
        """Check all alerts that are due."""
        before, self._tenants = self._tenants, {}
        for log in self._logs.current():
            alerts = before.get(log.key.tenant)
            if alerts is None or alerts.log is not log:
                alerts = TenantAlerts(log, self._index, self._clock, self._allowed)
            self._tenants[log.key.tenant] = alerts
        self._failing &= self._tenants.keys()
        await for_each(self._check, self._tenants, at_once=_AT_ONCE)

    async def _check(self, tenant: str) -> None:
        try:
            rules = await self._rules_of(tenant)
            await self._follower.caught_up(tenant)
            await self._tenants[tenant].check(rules, self._follower.version(tenant))
        except Exception as error:
            if tenant not in self._failing:
                self._failing.add(tenant)
                known = isinstance(error, ServiceError)
                _log.warning(
                    "alerts_not_checked", tenant=tenant, error=str(error) if known else None, exc_info=not known
                )
        else:
            self._failing.discard(tenant)
