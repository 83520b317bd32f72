"""When an alert fires, when it is over, and when it cannot fire: pure decisions."""

from typing import NamedTuple

from lavant.server.scores.recent import Recent
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.rule_pb2 import Alert, AlertObstacle, AlertState, AlertStatus, RuleProgress, ScoreStatistic

_MEAN, _PASS_RATE, _ERROR_RATE, _COUNT = ScoreStatistic.values()[1:]
_WORDS = {_MEAN: "the mean", _PASS_RATE: "the pass rate", _ERROR_RATE: "the error rate", _COUNT: "the number"}
_NONE = AlertObstacle.ALERT_OBSTACLE_UNSPECIFIED
_LONGEST_ERROR = 200  # characters


class Reading(NamedTuple):
    """What an alert's statistic is now: its value, or why there is none, made of so many `scores`."""

    state: "AlertState.ValueType"
    value: float | None
    scores: int
    obstacle: "AlertObstacle.ValueType" = _NONE


def read(alert: Alert, recent: Recent) -> Reading:
    """Compare an alert's statistic with its threshold.

    With fewer than its `min_count` scores of those that the statistic is made of there is no result: at least one, but
    for the number of scores itself, which may be none.
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


def changed(rule_id: str, alert: Alert, recent: Recent, *, firing: bool) -> AlertChanged | None:
    """Decide whether an alert that is firing, or not, changes; None: it stays as it is."""
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
        message=_message(rule_id, alert, value, recent.errors, "" if is_out else "no longer "),
    )


def removed(change: AlertChanged) -> AlertChanged:
    """The end of an alert that fires, and that its rule does not have any more."""
    return AlertChanged(
        rule_id=change.rule_id,
        alert=change.alert,
        threshold=change.threshold,
        message=f"the alert {change.alert} of rule {change.rule_id} was removed",
    )


def status(rule_id: str, alert: Alert, recent: Recent, progress: RuleProgress, *, firing: bool) -> AlertStatus:
    """Tell an alert's state, and why it cannot fire. `firing` is what was said of it last."""
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


def _obstacle(statistic: "ScoreStatistic.ValueType", alert: Alert, recent: Recent) -> "AlertObstacle.ValueType":
    """Why no value can be out of bounds; 0: it can."""
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


def _parts(statistic: "ScoreStatistic.ValueType", recent: Recent) -> tuple[float, int]:
    """A sum, and the number of scores that it is made of."""
    if statistic == _PASS_RATE:
        return recent.passes, recent.verdicts
    if statistic == _ERROR_RATE:
        return recent.errors, recent.scores
    if statistic == _COUNT:
        return recent.scores, recent.scores
    return recent.sum, recent.values


def _explain(rule_id: str, alert: Alert, recent: Recent, progress: RuleProgress, reading: Reading) -> str:
    """Say what state an alert is in, and what to do where it cannot fire."""
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
    return _message(rule_id, alert, reading.value, recent.errors, relation)


def _cause(progress: RuleProgress, recent: Recent, within: str) -> str:
    what = f"all {recent.scores:,} scores {within} are errors" if recent.scores else ""
    if progress.samples_delayed:
        what = f"{progress.samples_delayed:,} samples wait for another attempt"
    error = progress.last_error
    why = f"; last error: {error.type}: {error.message}"[:_LONGEST_ERROR] if error.message else ""
    return f": {what}{why}"


def _message(rule_id: str, alert: Alert, value: float, errors: int, relation: str) -> str:
    kind = str(alert.WhichOneof("threshold"))
    failed = f" ({errors:,} of them failed)" if errors else ""
    return (
        f"{_WORDS[alert.statistic or _MEAN]} of {alert.score_name or 'all'} scores{failed} of rule {rule_id} is "
        f"{value:.4g}, {relation}{kind} {getattr(alert, kind):g}"
    )


def _length(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
