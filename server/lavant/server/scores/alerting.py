"""Watches over the scores of rules with alerts."""

from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.periodic import Periodic
from lavant.server.scores.alert_log import AlertLog
from lavant.server.scores.follower import Follower
from lavant.server.scores.index import ScoreIndex
from lavant.server.scores.thresholds import changed, removed, status
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.rule_pb2 import Alert, AlertObstacle, AlertStatus, Rule, RuleProgress

_INTERVAL = 10.0  # seconds between two looks
_LOOKS = 360  # at a window within its length: a long one need not be added up as often as a short one
_AT_ONCE = 500  # changes in one batch

RulesOf = Callable[[str], Awaitable[Sequence[Rule]]]  # a tenant's rules, at least those with alerts
_Name = tuple[str, str]  # of a rule, and of its alert

_log = structlog.get_logger(__name__)


class Alerting(Periodic):
    """Compares scores with thresholds, and appends what changes to the logs of alerts; from `async with` to its end.

    All replicas look; each change is appended by one of them, once. `allowed` tells whether a webhook's address may
    be posted to.
    """

    def __init__(
        self,
        *,
        index: ScoreIndex,
        follower: Follower,
        clock: Clock,
        logs: Sequence[AlertLog],
        rules_of: RulesOf,
        allowed: Callable[[str], bool],
    ) -> None:
        super().__init__(clock, _INTERVAL)
        self._index = index
        self._follower = follower
        self._logs = logs
        self._rules_of = rules_of
        self._allowed = allowed
        self._due: dict[tuple[str, _Name, int], float] = {}
        self._missed: set[tuple[str, _Name]] = set()
        self._refused: set[str] = set()
        self._obstacles: dict[tuple[str, _Name], AlertObstacle.ValueType] = {}
        self._failing = False

    async def look(self) -> None:
        """Look at all alerts whose time it is."""
        try:
            await self._follower.caught_up()
            for log in self._logs:
                await self._look_at(log, await self._rules_of(log.key.tenant))
        except Exception as error:
            if not self._failing:
                self._failing = True
                known = isinstance(error, LavantError)
                _log.warning("alerts_not_checked", error=str(error) if known else None, exc_info=not known)
        else:
            self._failing = False

    async def _look_at(self, log: AlertLog, rules: Sequence[Rule]) -> None:
        await log.refresh()
        tenant, now = log.key.tenant, self._clock.monotonic()
        alerts = {(rule.rule_id, alert.name): (rule, alert) for rule in rules for alert in rule.alerts}
        changes = [(change, False) for change in self._removed(log, set(alerts))]
        looked_at = {}
        for name, (rule, alert) in alerts.items():
            place = (tenant, name, rule.revision)
            if self._due.get(place, now) > now or len(changes) >= _AT_ONCE:
                continue
            looked_at[place] = now + alert.window.ToNanoseconds() / 1e9 / _LOOKS - _INTERVAL / 2
            change = await self._change(log, rule, alert)
            if change is not None:
                changes.append((change, self._is_posted(alert)))
        if not changes or await log.tell(changes[:_AT_ONCE]):
            known = {(tenant, name, rule.revision) for name, (rule, _) in alerts.items()}
            self._due = {place: due for place, due in self._due.items() if place[0] != tenant or place in known}
            self._obstacles = {of: why for of, why in self._obstacles.items() if of[0] != tenant or of[1] in alerts}
            self._due.update(looked_at)

    async def _change(self, log: AlertLog, rule: Rule, alert: Alert) -> AlertChanged | None:
        since_ns = self._clock.time_ns() - alert.window.ToNanoseconds()
        recent = await self._index.recent(log.key.tenant, rule.rule_id, alert.score_name, since_ns)
        before = log.changes.get((rule.rule_id, alert.name))
        firing = before is not None and before.firing
        self._warn(log.key.tenant, rule.rule_id, status(rule.rule_id, alert, recent, RuleProgress(), firing=firing))
        return changed(rule.rule_id, alert, recent, firing=firing)

    def _warn(self, tenant: str, rule_id: str, told: AlertStatus) -> None:
        """Log once when an alert cannot fire any more, or for another reason, and when it can again."""
        place = (tenant, (rule_id, told.name))
        if self._obstacles.get(place, AlertObstacle.ALERT_OBSTACLE_UNSPECIFIED) == told.obstacle:
            return
        self._obstacles[place] = told.obstacle
        if told.obstacle == AlertObstacle.ALERT_OBSTACLE_UNSPECIFIED:
            _log.info("alert_can_fire", rule_id=rule_id, alert=told.name)
        elif told.obstacle == AlertObstacle.ALERT_OBSTACLE_NO_SCORES:  # as every night
            _log.info("alert_cannot_fire", rule_id=rule_id, alert=told.name, reason=told.message)
        else:
            _log.warning("alert_cannot_fire", rule_id=rule_id, alert=told.name, reason=told.message)

    def _removed(self, log: AlertLog, names: set[_Name]) -> Iterator[AlertChanged]:
        """The ends of alerts that fire, and were missed twice: a rule that is new elsewhere may not be known here."""
        tenant = log.key.tenant
        missed = {(tenant, name) for name, change in log.changes.items() if change.firing and name not in names}
        for _, name in sorted(missed & self._missed):
            yield removed(log.changes[name])
        self._missed = {place for place in self._missed if place[0] != tenant} | missed

    def _is_posted(self, alert: Alert) -> bool:
        """Tell whether a change is posted; says once if its address is not allowed, but not what the address is."""
        if not alert.webhook_url or self._allowed(alert.webhook_url):
            return bool(alert.webhook_url)
        if alert.name not in self._refused:
            self._refused.add(alert.name)
            _log.warning("webhook_not_allowed", alert=alert.name)
        return False
