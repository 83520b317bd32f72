"""When an alert fires, and when it is over: pure decisions."""

from lavant.server.scores.recent import Recent
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.rule_pb2 import Alert, ScoreStatistic

_WORDS = {
    ScoreStatistic.SCORE_STATISTIC_MEAN: "the mean",
    ScoreStatistic.SCORE_STATISTIC_PASS_RATE: "the pass rate",
    ScoreStatistic.SCORE_STATISTIC_ERROR_RATE: "the error rate",
    ScoreStatistic.SCORE_STATISTIC_COUNT: "the number",
}


def changed(rule_id: str, alert: Alert, recent: Recent, *, firing: bool) -> AlertChanged | None:
    """Decide whether an alert that is firing, or not, changes; None: it stays as it is.

    It stays with fewer than its `min_count` scores of those that the statistic is made of: at least one, but for
    the number of scores itself, which may be none.
    """
    statistic = alert.statistic or ScoreStatistic.SCORE_STATISTIC_MEAN
    total, count = _parts(statistic, recent)
    if count < alert.min_count:
        return None
    if statistic == ScoreStatistic.SCORE_STATISTIC_COUNT:
        value = float(count)
    elif count:
        value = total / count
    else:
        return None
    kind = str(alert.WhichOneof("threshold"))
    threshold: float = getattr(alert, kind)
    out_of_bounds = value < threshold if kind == "below" else value > threshold
    if out_of_bounds == firing:
        return None
    return AlertChanged(
        rule_id=rule_id,
        alert=alert.name,
        firing=out_of_bounds,
        value=value,
        threshold=threshold,
        count=count,
        message=f"{_WORDS[statistic]} of {alert.score_name or 'all'} scores of rule {rule_id} is {value:.4g}, "
        f"{'' if out_of_bounds else 'no longer '}{kind} {threshold:g}",
    )


def removed(change: AlertChanged) -> AlertChanged:
    """The end of an alert that fires, and that its rule does not have any more."""
    return AlertChanged(
        rule_id=change.rule_id,
        alert=change.alert,
        threshold=change.threshold,
        message=f"the alert {change.alert} of rule {change.rule_id} was removed",
    )


def _parts(statistic: "ScoreStatistic.ValueType", recent: Recent) -> tuple[float, int]:
    """A sum, and the number of scores that it is made of."""
    match statistic:
        case ScoreStatistic.SCORE_STATISTIC_PASS_RATE:
            return recent.passes, recent.verdicts
        case ScoreStatistic.SCORE_STATISTIC_ERROR_RATE:
            return recent.errors, recent.scores
        case ScoreStatistic.SCORE_STATISTIC_COUNT:
            return recent.scores, recent.scores
        case _:
            return recent.sum, recent.values
