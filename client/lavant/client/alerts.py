"""Alerts of rules: their thresholds and their state."""

from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from pydantic import model_validator

from lavant.client._wire.arguments import choose, exact_duration
from lavant.client.models import Frozen
from lavant.client.states import ContractEnum, ScoreStatistic, register
from lavant.v1 import rule_pb2


class Alert(Frozen):
    """Alert on a rule's scores. Its changes arrive at `client.scores.alerts`.

    It fires while the statistic of the scores recorded in the last `window` is `below` or `above` its threshold. With
    fewer than `min_count` scores its state does not change; None stands for one score, or none if the statistic counts
    scores. Without a `score_name` all scores of the rule count. Changes are posted to `webhook_url` as JSON, if the
    server's settings allow the address.

    A rule that names its evaluators refuses alerts on other scores. Raises ValueError unless exactly
    one threshold is set.

    Example:
        wrong = Alert(name="wrong", score_name="correctness", below=0.8, window=timedelta(hours=1), min_count=30)
        rule = await client.rules.create("quality", alerts=[wrong])
        assert rule.alerts == (wrong,)
    """

    _contract: ClassVar = rule_pb2.Alert

    name: str
    score_name: str = ""
    statistic: ScoreStatistic = ScoreStatistic.MEAN
    below: float | None = None
    above: float | None = None
    window: timedelta
    min_count: int | None = None
    webhook_url: str = ""

    @model_validator(mode="after")
    def _has_one_threshold(self) -> Self:
        if (self.below is None) == (self.above is None):
            raise ValueError(f"alert {self.name!r} must fire below= or above= a threshold, one of them")
        return self

    @classmethod
    def from_proto(cls, proto: Any, **given: Any) -> Self:
        """Return the value of the contract's Alert."""
        statistic = ScoreStatistic.from_number(proto.statistic or rule_pb2.SCORE_STATISTIC_MEAN)
        return super().from_proto(proto, statistic=statistic, **given)

    def to_proto(self) -> rule_pb2.Alert:
        """Return the contract's Alert."""
        return rule_pb2.Alert(
            name=self.name,
            score_name=self.score_name,
            statistic=choose("statistic", self.statistic, ScoreStatistic.numbers()),
            **self._threshold(),
            window=exact_duration(self.window),
            min_count=self.min_count,
            webhook_url=self.webhook_url,
        )

    def _threshold(self) -> dict[str, float]:
        return {key: value for key, value in (("below", self.below), ("above", self.above)) if value is not None}


class AlertState(ContractEnum):
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


class AlertObstacle(ContractEnum):
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

    _contract: ClassVar = rule_pb2.AlertStatus
    _contract_names: ClassVar = {"checked": "check_time"}

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
    def from_proto(cls, proto: Any, **given: Any) -> Self:
        """Return the value of the contract's AlertStatus."""
        obstacle = AlertObstacle.from_number(proto.obstacle) if proto.obstacle else None
        return super().from_proto(proto, obstacle=obstacle, **given)


register(AlertState, rule_pb2.AlertState)
register(AlertObstacle, rule_pb2.AlertObstacle)
