"""Alerts of one tenant: comparison of its rules' scores with the thresholds, and what was found before."""

from collections.abc import Callable, Iterator, Sequence

import structlog

from lavant.server.clock import Clock
from lavant.server.scores.alerts.log import AlertLog
from lavant.server.scores.alerts.statuses import status
from lavant.server.scores.alerts.thresholds import RecentScores, changed, recent_scores, removed
from lavant.server.scores.index.database import ScoreIndex
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.rule_pb2 import Alert, AlertObstacle, AlertStatus, Rule, RuleProgress

INTERVAL = 10.0  # seconds between two checks
_CHECKS = 360  # checks per length of a window: a long one need not be aggregated as often as a short one
_AT_ONCE = 500  # changes in one batch

_Name = tuple[str, str]  # of a rule, and of its alert

_log = structlog.get_logger(__name__)


class TenantAlerts:
    """Checks the alerts of one tenant, and appends their changes to its log of alerts."""

    def __init__(self, log: AlertLog, index: ScoreIndex, clock: Clock, allowed: Callable[[str], bool]) -> None:
        self.log = log
        self._tenant = log.key.tenant
        self._index = index
        self._clock = clock
        self._allowed = allowed
        self._due: dict[tuple[_Name, int], float] = {}
        self._empty: dict[tuple[_Name, int], int] = {}  # versions of the scores with which windows were empty
        self._missed: set[_Name] = set()
        self._refused: set[str] = set()
        self._obstacles: dict[_Name, AlertObstacle.ValueType] = {}

    async def check(self, rules: Sequence[Rule], version: int) -> None:
        """Check the alerts of all rules that are due. `version` is that of the tenant's scores.

        While there are no new scores, one whose window was empty stays as it is: a tenant at rest costs no query.
        """
        await self.log.refresh()
        now = self._clock.monotonic()
        alerts = {(rule.rule_id, alert.name): (rule, alert) for rule in rules for alert in rule.alerts}
        changes = [(change, False) for change in self._removed(set(alerts))]
        next_due: dict[tuple[_Name, int], float] = {}
        empty: dict[tuple[_Name, int], int] = {}
        for name, (rule, alert) in alerts.items():
            key = (name, rule.revision)
            if self._empty.get(key) == version or self._due.get(key, now) > now or len(changes) >= _AT_ONCE:
                continue
            next_due[key] = now + alert.window.ToNanoseconds() / 1e9 / _CHECKS - INTERVAL / 2
            recent = await self._recent(rule, alert)
            if not recent.scores:
                empty[key] = version
            change = self._change(rule, alert, recent)
            if change is not None:
                changes.append((change, self._is_posted(alert)))
        if not changes or await self.log.append(changes[:_AT_ONCE]):
            known = {(name, rule.revision) for name, (rule, _) in alerts.items()}
            self._due = {key: due for key, due in self._due.items() if key in known}
            self._obstacles = {name: why for name, why in self._obstacles.items() if name in alerts}
            self._due.update(next_due)
            self._empty = {key: found for key, found in self._empty.items() if key in known} | empty

    async def _recent(self, rule: Rule, alert: Alert) -> RecentScores:
        since_ns = self._clock.time_ns() - alert.window.ToNanoseconds()
        return await self._index.read(recent_scores, self._tenant, rule.rule_id, alert.score_name, since_ns)

    def _change(self, rule: Rule, alert: Alert, recent: RecentScores) -> AlertChanged | None:
        before = self.log.changes.get((rule.rule_id, alert.name))
        firing = before is not None and before.firing
        self._warn(rule.rule_id, status(rule.rule_id, alert, recent, RuleProgress(), firing=firing))
        return changed(rule.rule_id, alert, recent, firing=firing)

    def _warn(self, rule_id: str, current: AlertStatus) -> None:
        """Log once when an alert cannot fire any more, or for another reason, and when it can again."""
        name = (rule_id, current.name)
        if self._obstacles.get(name, AlertObstacle.ALERT_OBSTACLE_UNSPECIFIED) == current.obstacle:
            return
        self._obstacles[name] = current.obstacle
        log = _log.bind(tenant=self._tenant, rule_id=rule_id, alert=current.name)
        if current.obstacle == AlertObstacle.ALERT_OBSTACLE_UNSPECIFIED:
            log.info("alert_can_fire")
        elif current.obstacle == AlertObstacle.ALERT_OBSTACLE_NO_SCORES:  # as every night
            log.info("alert_cannot_fire", reason=current.message)
        else:
            log.warning("alert_cannot_fire", reason=current.message)

    def _removed(self, names: set[_Name]) -> Iterator[AlertChanged]:
        """Yield the ends of firing alerts that were missing twice: other replicas' new rules may not be known yet."""
        missed = {name for name, change in self.log.changes.items() if change.firing and name not in names}
        for name in sorted(missed & self._missed):
            yield removed(self.log.changes[name])
        self._missed = missed

    def _is_posted(self, alert: Alert) -> bool:
        """Return whether a change is posted. Log once that its address is not allowed, without the secret address."""
        if not alert.webhook_url or self._allowed(alert.webhook_url):
            return bool(alert.webhook_url)
        if alert.name not in self._refused:
            self._refused.add(alert.name)
            _log.warning("webhook_not_allowed", tenant=self._tenant, alert=alert.name)
        return False
