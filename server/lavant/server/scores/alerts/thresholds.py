"""Decisions about alerts: when one fires, ends, or cannot fire. No I/O."""

from typing import Any, NamedTuple

import apsw

from lavant.server.scores.index.tally import Kind
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.rule_pb2 import Alert, AlertObstacle, AlertState, ScoreStatistic

_MEAN, _PASS_RATE, _ERROR_RATE, _COUNT = ScoreStatistic.values()[1:]
_WORDS = {_MEAN: "the mean", _PASS_RATE: "the pass rate", _ERROR_RATE: "the error rate", _COUNT: "the number"}
_NONE = AlertObstacle.ALERT_OBSTACLE_UNSPECIFIED
# By the time of recording: a backfill's scores are new, however long ago the runs ended.
_RECENT = """SELECT series.name, count(*), count(value), total(value), total(kind = 1), total(kind = 1 AND value > 0),
        total(kind = 3)
    FROM series CROSS JOIN scores INDEXED BY scores_by_record ON scores.series = series.id AND recorded_ns > ?
    WHERE series.tenant = ? AND series.rule_id = ? AND (? = '' OR series.name = ?)
    GROUP BY series.name"""
# Any value will do: names whose scores are of several kinds are rare, and the first one is found at once.
_KIND = """SELECT kind FROM series CROSS JOIN scores INDEXED BY scores_by_record ON scores.series = series.id
    WHERE series.tenant = ? AND series.rule_id = ? AND series.name = ? AND kind != 3 LIMIT 1"""
_NAMES = "SELECT DISTINCT name FROM series WHERE tenant = ? AND rule_id = ? ORDER BY name LIMIT 20"


class RecentScores(NamedTuple):
    """Aggregates of the scores that a rule recorded in a window.

    `scores` counts all of them, `values` numbers and verdicts with their `sum`, `verdicts` those with how many of them
    passed (`passes`), and `errors` the failures of evaluators. A failure counts as a verdict that did not pass where
    the name's values are verdicts. If there are no scores, `names` are all names that the rule ever recorded.
    """

    scores: int
    values: int
    sum: float
    verdicts: int
    passes: int
    errors: int
    names: tuple[str, ...] = ()


class Reading(NamedTuple):
    """Current value of an alert's statistic, or why there is none, and the number of `scores` that it is made of."""

    state: "AlertState.ValueType"
    value: float | None
    scores: int
    obstacle: "AlertObstacle.ValueType" = _NONE


def recent_scores(connection: apsw.Connection, tenant: str, rule_id: str, name: str, since_ns: int) -> RecentScores:
    """Aggregate scores that a rule recorded since a point in time, by a score's name or all of them (empty)."""
    rows: Any = connection.execute(_RECENT, (since_ns, tenant, rule_id, name, name)).fetchall()
    parts = [_of_name(connection, tenant, rule_id, row) for row in rows]
    if not parts:
        names: Any = connection.execute(_NAMES, (tenant, rule_id)).fetchall()
        return RecentScores(0, 0, 0.0, 0, 0, 0, tuple(found for (found,) in names))
    columns = zip(*(part[:-1] for part in parts), strict=True)
    return RecentScores(*map(sum, columns))  # type: ignore[arg-type]  # each column is of one type


def _of_name(connection: apsw.Connection, tenant: str, rule_id: str, row: Any) -> RecentScores:
    name, scores, values, total, *counts = row
    verdicts, passes, errors = map(int, counts)
    if verdicts:
        is_verdict = verdicts == values
    else:  # if the evaluator only fails, its earlier scores show whether it returns verdicts
        is_verdict = scores == errors and _kind_of(connection, tenant, rule_id, name) == Kind.VERDICT
    unpassed = errors if is_verdict else 0
    return RecentScores(scores, values + unpassed, total, verdicts + unpassed, passes, errors)


def _kind_of(connection: apsw.Connection, tenant: str, rule_id: str, name: str) -> int | None:
    kind: int | None = connection.execute(_KIND, (tenant, rule_id, name)).get
    return kind


def read(alert: Alert, recent: RecentScores) -> Reading:
    """Compare an alert's statistic with its threshold.

    There is no result with fewer than `min_count` of the scores that the statistic is made of. At least one is needed,
    except for the number of scores itself, which may be zero.
    """
    statistic = alert.statistic or _MEAN
    total, count = _parts(statistic, recent)
    value = float(count) if statistic == _COUNT else total / count if count else None
    kind = str(alert.WhichOneof("threshold"))
    threshold: float = getattr(alert, kind)
    is_out = value is not None and (value < threshold if kind == "below" else value > threshold)
    obstacle = _obstacle(statistic, alert, recent)
    if obstacle and not (statistic == _COUNT and is_out):
        return Reading(AlertState.ALERT_STATE_CANNOT_FIRE, value, count, obstacle)
    if value is None or count < alert.min_count:
        return Reading(AlertState.ALERT_STATE_TOO_FEW, value, count)
    return Reading(AlertState.ALERT_STATE_FIRING if is_out else AlertState.ALERT_STATE_OK, value, count)


def changed(rule_id: str, alert: Alert, recent: RecentScores, *, firing: bool) -> AlertChanged | None:
    """Return the change of an alert that is firing, or not; None: its state stays the same."""
    state, value, count, _ = read(alert, recent)
    is_out = state == AlertState.ALERT_STATE_FIRING
    if value is None or is_out == firing or state not in (AlertState.ALERT_STATE_FIRING, AlertState.ALERT_STATE_OK):
        return None
    return AlertChanged(
        rule_id=rule_id,
        alert=alert.name,
        firing=is_out,
        value=value,
        threshold=getattr(alert, str(alert.WhichOneof("threshold"))),
        count=count,
        error_count=recent.errors,
        message=describe(rule_id, alert, value, recent.errors, "" if is_out else "no longer "),
    )


def removed(change: AlertChanged) -> AlertChanged:
    """Return the end of a firing alert that its rule does not have any more."""
    return AlertChanged(
        rule_id=change.rule_id,
        alert=change.alert,
        threshold=change.threshold,
        message=f"the alert {change.alert} of rule {change.rule_id} was removed",
    )


def _obstacle(statistic: "ScoreStatistic.ValueType", alert: Alert, recent: RecentScores) -> "AlertObstacle.ValueType":
    """Return why no value can be out of bounds; 0 if one can."""
    if not recent.scores:
        if alert.score_name and recent.names and alert.score_name not in recent.names:
            return AlertObstacle.ALERT_OBSTACLE_UNKNOWN_SCORE
        return _NONE if statistic == _COUNT else AlertObstacle.ALERT_OBSTACLE_NO_SCORES
    if statistic in (_COUNT, _ERROR_RATE) or _parts(statistic, recent)[1]:
        return _NONE
    if recent.errors == recent.scores:
        return AlertObstacle.ALERT_OBSTACLE_EVALUATOR_DOWN
    is_pass_rate = statistic == _PASS_RATE
    return AlertObstacle.ALERT_OBSTACLE_NO_VERDICTS if is_pass_rate else AlertObstacle.ALERT_OBSTACLE_NO_NUMBERS


def _parts(statistic: "ScoreStatistic.ValueType", recent: RecentScores) -> tuple[float, int]:
    """Return a sum, and the number of scores that it is made of."""
    if statistic == _PASS_RATE:
        return recent.passes, recent.verdicts
    if statistic == _ERROR_RATE:
        return recent.errors, recent.scores
    if statistic == _COUNT:
        return recent.scores, recent.scores
    return recent.sum, recent.values


def describe(rule_id: str, alert: Alert, value: float, errors: int, relation: str) -> str:
    """Return a sentence about a statistic and its threshold."""
    kind = str(alert.WhichOneof("threshold"))
    failed = f" ({errors:,} of them failed)" if errors else ""
    return (
        f"{_WORDS[alert.statistic or _MEAN]} of {alert.score_name or 'all'} scores{failed} of rule {rule_id} is "
        f"{value:.4g}, {relation}{kind} {getattr(alert, kind):g}"
    )
