"""The logs of alerts of all tenants that have rules."""

from collections.abc import Callable, Sequence

from lavant.server.clock import Clock
from lavant.server.scores.alerts.log import AlertLog
from lavant.server.store.port import Engine


class AlertLogs:
    """Opens the log of a tenant's alerts when it has rules, and closes it when it has none any more."""

    def __init__(self, engine: Engine, clock: Clock, tenants_with_rules: Callable[[], Sequence[str]]) -> None:
        self._engine = engine
        self._clock = clock
        self._tenants_with_rules = tenants_with_rules
        self._logs: dict[str, AlertLog] = {}

    def of(self, tenant: str) -> AlertLog:
        """Return the log of a tenant that has rules."""
        log = self._logs.get(tenant)
        if log is None:
            log = self._logs[tenant] = AlertLog(self._engine, self._clock, tenant)
        return log

    def current(self) -> list[AlertLog]:
        """Return the logs of the tenants that have rules now, or changes that are still to be posted."""
        wanted = set(self._tenants_with_rules())
        for tenant, log in list(self._logs.items()):
            if tenant not in wanted and not log.deliveries:
                self._logs.pop(tenant).close()
        for tenant in wanted - self._logs.keys():
            self.of(tenant)
        return list(self._logs.values())

    def close(self) -> None:
        """Stop watching all logs."""
        for log in self._logs.values():
            log.close()
