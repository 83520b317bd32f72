"""State of rules' alerts, for whoever reads a rule."""

from collections.abc import Sequence
from typing import NamedTuple

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.scores.alert_log import AlertLog
from lavant.server.scores.follower import Follower
from lavant.server.scores.index import ScoreIndex
from lavant.server.scores.recent import Recent
from lavant.server.scores.thresholds import status
from lavant.v1.rule_pb2 import Alert, AlertStatus, Rule

_FRESH = 3_600  # a check is used again for this part of the window's length: long windows take long to add up
_KEPT = 10_000  # checks

_Place = tuple[str, str, int, str]  # tenant, rule, its revision, alert


class _Check(NamedTuple):
    """What was found in an alert's window, and when: in monotonic and in wall time."""

    recent: Recent
    at: float
    time_ns: int


class AlertStatuses:
    """Tells what state alerts are in, by what this server knows of their scores."""

    def __init__(self, index: ScoreIndex, follower: Follower, logs: Sequence[AlertLog], clock: Clock) -> None:
        self._index = index
        self._follower = follower
        self._logs = {log.key.tenant: log for log in logs}
        self._clock = clock
        self._checks: dict[_Place, _Check] = {}

    async def of(self, tenant: str, rule: Rule) -> list[AlertStatus]:
        """Tell the state of each of a rule's alerts, in their order; of none while the scores are being read."""
        if not rule.alerts:
            return []
        try:
            await self._follower.caught_up()
            log = self._logs[tenant]
            await log.refresh()
        except (LavantError, KeyError):
            return []
        return [await self._status(log, rule, alert) for alert in rule.alerts]

    async def _status(self, log: AlertLog, rule: Rule, alert: Alert) -> AlertStatus:
        check = await self._check(log.key.tenant, rule, alert)
        last = log.changes.get((rule.rule_id, alert.name))
        firing = last is not None and last.firing
        told = status(rule.rule_id, alert, check.recent, rule.progress, firing=firing)
        told.check_time.FromNanoseconds(check.time_ns)
        return told

    async def _check(self, tenant: str, rule: Rule, alert: Alert) -> _Check:
        place, now = (tenant, rule.rule_id, rule.revision, alert.name), self._clock.monotonic()
        window_ns = alert.window.ToNanoseconds()
        known = self._checks.pop(place, None)
        if known is None or now - known.at > window_ns / 1e9 / _FRESH:
            time_ns = self._clock.time_ns()
            recent = await self._index.recent(tenant, rule.rule_id, alert.score_name, time_ns - window_ns)
            known = _Check(recent, now, time_ns)
        self._checks[place] = known
        if len(self._checks) > _KEPT:
            del self._checks[next(iter(self._checks))]
        return known
