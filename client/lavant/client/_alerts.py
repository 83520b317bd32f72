"""Alerts of rules: when they fire, and what state they are in. Pure."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from pydantic import model_validator

from lavant.client._arguments import choose, exact_duration
from lavant.client._frozen import Frozen
from lavant.client._models import duration_of, time_of
from lavant.client._states import ScoreStatistic, statistic_of
from lavant.v1 import rule_pb2

_STATISTICS = {name.removeprefix("SCORE_STATISTIC_").lower(): value for name, value in rule_pb2.ScoreStatistic.items()}


class Alert(Frozen):
    """Tells when a rule's scores leave their bounds, and when they are back; see `client.scores.alerts`.

    It fires `below` or above a threshold, of the scores recorded in the last `window`; with fewer than `min_count` of
    these it stays as it is: without one if that is 0, unless scores are counted. Without a `score_name` all of the
    rule's scores count. A change is also posted to the `webhook_url`, as JSON, where the server's settings allow the
    address.

    A rule that names its evaluators refuses alerts on scores that none of them gives. Raises ValueError unless it has
    one threshold.

    Example:
        wrong = Alert(name="wrong", score_name="correctness", below=0.8, window=timedelta(hours=1), min_count=30)
        rule = await client.rules.create("quality", alerts=[wrong])
        assert rule.alerts == (wrong,)
    """

    name: str
    score_name: str = ""
    statistic: ScoreStatistic = ScoreStatistic.MEAN
    below: float | None = None
    above: float | None = None
    window: timedelta
    min_count: int = 0
    webhook_url: str = ""

    @model_validator(mode="after")
    def _has_one_threshold(self) -> Self:
        if (self.below is None) == (self.above is None):
            raise ValueError(f"alert {self.name!r} must fire below= or above= a threshold, one of them")
        return self

    @classmethod
    def from_proto(cls, proto: rule_pb2.Alert) -> Self:
        """Read it from the contract's Alert."""
        return cls(
            name=proto.name,
            score_name=proto.score_name,
            statistic=statistic_of(proto.statistic or rule_pb2.SCORE_STATISTIC_MEAN),
            below=proto.below if proto.HasField("below") else None,
            above=proto.above if proto.HasField("above") else None,
            window=duration_of(proto, "window") or timedelta(),
            min_count=proto.min_count,
            webhook_url=proto.webhook_url,
        )

    def to_proto(self) -> rule_pb2.Alert:
        """Write it as the contract's Alert."""
        return rule_pb2.Alert(
            name=self.name,
            score_name=self.score_name,
            statistic=choose("statistic", self.statistic, _STATISTICS),
            **self._threshold(),
            window=exact_duration(self.window),
            min_count=self.min_count,
            webhook_url=self.webhook_url,
        )

    def _threshold(self) -> dict[str, float]:
        return {key: value for key, value in (("below", self.below), ("above", self.above)) if value is not None}


class AlertState(StrEnum):
    """State of an alert.

    Example:
        few = Alert(name="few", statistic="count", below=100, window=timedelta(hours=1))
        rule = await client.rules.create("quality", alerts=[few])
        assert rule.alert_statuses[0].state is AlertState.FIRING
    """

    UNSPECIFIED = "unspecified"
    OK = "ok"
    FIRING = "firing"
    TOO_FEW = "too_few"
    CANNOT_FIRE = "cannot_fire"


class AlertObstacle(StrEnum):
    """Why an alert cannot fire.

    Example:
        low = Alert(name="low", score_name="correctness", below=0.8, window=timedelta(hours=1))
        rule = await client.rules.create("quality", alerts=[low])
        assert rule.alert_statuses[0].obstacle is AlertObstacle.NO_SCORES
    """

    UNSPECIFIED = "unspecified"
    NO_SCORES = "no_scores"
    UNKNOWN_SCORE = "unknown_score"
    NO_VERDICTS = "no_verdicts"
    NO_NUMBERS = "no_numbers"
    EVALUATOR_DOWN = "evaluator_down"


class AlertStatus(Frozen):
    """State of an alert when its rule was read.

    `obstacle` says why an alert cannot fire, and `message` what to do about it. `firing` is what was last said of the
    alert in `client.scores.alerts`. `value` is compared with the threshold and made of `count` scores; `error_count`
    scores in the window are failures of their evaluators.

    Example:
        low = Alert(name="low", score_name="correctness", below=0.8, window=timedelta(hours=1))
        rule = await client.rules.create("quality", alerts=[low])
        [status] = rule.alert_statuses
        assert (status.name, status.state, status.obstacle) == ("low", "cannot_fire", "no_scores")
    """

    name: str
    state: AlertState = AlertState.UNSPECIFIED
    obstacle: AlertObstacle | None = None
    message: str = ""
    firing: bool = False
    value: float | None = None
    count: int = 0
    error_count: int = 0
    checked: datetime | None = None

    @classmethod
    def from_proto(cls, proto: rule_pb2.AlertStatus) -> Self:
        """Read it from the contract's AlertStatus."""
        return cls(
            name=proto.name,
            state=_STATES.get(proto.state, AlertState.UNSPECIFIED),
            obstacle=_OBSTACLES.get(proto.obstacle, AlertObstacle.UNSPECIFIED) if proto.obstacle else None,
            message=proto.message,
            firing=proto.firing,
            value=proto.value if proto.HasField("value") else None,
            count=proto.count,
            error_count=proto.error_count,
            checked=time_of(proto, "check_time"),
        )


_STATES = {rule_pb2.AlertState.Value(f"ALERT_STATE_{one.name}"): one for one in AlertState}
_OBSTACLES = {rule_pb2.AlertObstacle.Value(f"ALERT_OBSTACLE_{one.name}"): one for one in AlertObstacle}
