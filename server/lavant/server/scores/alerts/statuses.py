"""Current status of rules' alerts, for responses that contain a rule."""

from typing import NamedTuple

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError
from lavant.server.scores.alerts.log import AlertLog
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.thresholds import Reading, RecentScores, describe, read, recent_scores
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.v1.rule_pb2 import Alert, AlertObstacle, AlertState, AlertStatus, Rule, RuleProgress

_FRESH = 3_600  # a check is used again for this part of the window's length: long windows take long to add up
_KEPT = 10_000  # checks
_LONGEST_ERROR = 200  # characters

_Key = tuple[str, str, int, str]  # tenant, rule, its revision, alert


class _Check(NamedTuple):
    """Scores found in an alert's window, and when: in monotonic and in wall time."""

    recent: RecentScores
    at: float
    time_ns: int


class AlertStatuses:
    """Computes the status of alerts from the scores that this server has indexed."""

    def __init__(self, index: ScoreIndex, follower: Follower, logs: AlertLogs, clock: Clock) -> None:
        self._index = index
        self._follower = follower
        self._logs = logs
        self._clock = clock
        self._checks: dict[_Key, _Check] = {}

    async def of(self, tenant: str, rule: Rule) -> list[AlertStatus]:
        """Return the status of each alert of a rule, in their order; none while the index is not complete."""
        if not rule.alerts:
            return []
        try:
            await self._follower.caught_up(tenant)
            log = self._logs.of(tenant)
            await log.refresh()
        except ServiceError:
            return []
        return [await self._status(log, rule, alert) for alert in rule.alerts]

    async def _status(self, log: AlertLog, rule: Rule, alert: Alert) -> AlertStatus:
        check = await self._check(log.key.tenant, rule, alert)
        last = log.changes.get((rule.rule_id, alert.name))
        firing = last is not None and last.firing
        current = status(rule.rule_id, alert, check.recent, rule.progress, firing=firing)
        current.check_time.FromNanoseconds(check.time_ns)
        return current

    async def _check(self, tenant: str, rule: Rule, alert: Alert) -> _Check:
        key, now = (tenant, rule.rule_id, rule.revision, alert.name), self._clock.monotonic()
        window_ns = alert.window.ToNanoseconds()
        known = self._checks.pop(key, None)
        if known is None or now - known.at > window_ns / 1e9 / _FRESH:
            time_ns = self._clock.time_ns()
            recent = await self._index.read(recent_scores, tenant, rule.rule_id, alert.score_name, time_ns - window_ns)
            known = _Check(recent, now, time_ns)
        self._checks[key] = known
        if len(self._checks) > _KEPT:
            del self._checks[next(iter(self._checks))]
        return known


def status(rule_id: str, alert: Alert, recent: RecentScores, progress: RuleProgress, *, firing: bool) -> AlertStatus:
    """Return an alert's status, and why it cannot fire. `firing` is its last recorded state."""
    reading = read(alert, recent)
    if reading.obstacle == AlertObstacle.ALERT_OBSTACLE_NO_SCORES and progress.samples_delayed:
        reading = reading._replace(obstacle=AlertObstacle.ALERT_OBSTACLE_EVALUATOR_DOWN)
    return AlertStatus(
        name=alert.name,
        state=reading.state,
        firing=firing,
        obstacle=reading.obstacle,
        message=_explain(rule_id, alert, recent, progress, reading),
        value=reading.value,
        count=reading.scores,
        error_count=recent.errors,
    )


def _explain(rule_id: str, alert: Alert, recent: RecentScores, progress: RuleProgress, reading: Reading) -> str:
    """Return a sentence about an alert's state, and what to do where it cannot fire."""
    which = f"{alert.score_name or 'any'} score"
    within = f"in the last {_length(alert.window.ToNanoseconds() / 1e9)}"
    match reading.obstacle:
        case AlertObstacle.ALERT_OBSTACLE_NO_SCORES:
            return f"cannot fire: rule {rule_id} recorded no {which} {within}"
        case AlertObstacle.ALERT_OBSTACLE_UNKNOWN_SCORE:
            return (
                f"cannot fire: no score of rule {rule_id} is named {alert.score_name}, only {', '.join(recent.names)}"
            )
        case AlertObstacle.ALERT_OBSTACLE_NO_VERDICTS:
            return f"cannot fire: the {which}s are no verdicts, and have no pass rate; use another statistic"
        case AlertObstacle.ALERT_OBSTACLE_NO_NUMBERS:
            return f"cannot fire: the {which}s are no numbers or verdicts, and have no mean; use another statistic"
        case AlertObstacle.ALERT_OBSTACLE_EVALUATOR_DOWN:
            return f"cannot fire: the evaluators fail{_cause(progress, recent, within)}"
    if reading.value is None or reading.state == AlertState.ALERT_STATE_TOO_FEW:
        return f"{reading.scores:,} scores {within}, fewer than {max(1, alert.min_count):,}: it stays as it is"
    relation = "" if reading.state == AlertState.ALERT_STATE_FIRING else "not "
    return describe(rule_id, alert, reading.value, recent.errors, relation)


def _cause(progress: RuleProgress, recent: RecentScores, within: str) -> str:
    what = f"all {recent.scores:,} scores {within} are errors" if recent.scores else ""
    if progress.samples_delayed:
        what = f"{progress.samples_delayed:,} samples wait for another attempt"
    error = progress.last_error
    why = f"; last error: {error.type}: {error.message}"[:_LONGEST_ERROR] if error.message else ""
    return f": {what}{why}"


def _length(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
