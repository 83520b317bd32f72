"""Scores of runs: single ones, groups of them, and how they change."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, Self

from google.protobuf.message import Message

from lavant.client._wire import json_text as _json
from lavant.client._wire.arguments import several, timestamp
from lavant.client.models import ErrorInfo, Frozen
from lavant.client.states import ScoreTrend
from lavant.contract.text import to_text
from lavant.v1 import event_pb2, score_service_pb2

ScoreDimension = Literal["rule", "name", "evaluator", "version", "run_name"]

DIMENSIONS: "dict[str, score_service_pb2.ScoreDimension.ValueType]" = {
    "rule": score_service_pb2.SCORE_DIMENSION_RULE,
    "name": score_service_pb2.SCORE_DIMENSION_NAME,
    "evaluator": score_service_pb2.SCORE_DIMENSION_EVALUATOR,
    "version": score_service_pb2.SCORE_DIMENSION_VERSION,
    "run_name": score_service_pb2.SCORE_DIMENSION_RUN_NAME,
}


class Score(Frozen):
    """Score of a row or a run, by one evaluator.

    `value` is a number, a verdict (bool) or a class (str); None if the evaluator failed, which has an `error`. Scores
    are comparable if their `evaluator` and `version` are the same; `config` has the evaluator's settings.

    Example:
        evaluation = await client.evaluations.wait(evaluation_id)
        score = evaluation.rows[0].scores[0]
        assert (score.name, score.value) == ("correct", True)
    """

    _contract: ClassVar[type[Message]] = event_pb2.Score
    _contract_names: ClassVar = {"evaluator": ""}  # a message there, a name here: from_proto reads it

    name: str
    value: float | bool | str | None
    explanation: str = ""
    evaluator: str = ""
    version: str = ""
    config: Any = None
    error: ErrorInfo | None = None
    higher_is_better: bool | None = None

    @classmethod
    def from_proto(cls, proto: Any, **given: Any) -> Self:
        """Read the contract's Score."""
        kind = proto.WhichOneof("value")
        return super().from_proto(
            proto,
            value=None if kind is None else getattr(proto, kind),
            evaluator=proto.evaluator.name,
            version=proto.evaluator.version,
            config=_json.decode(proto.evaluator.config_json),
            **given,
        )

    @property
    def number(self) -> float | None:
        """The value as a number, a verdict as 1 or 0; None for a class or a failure."""
        return None if self.value is None or isinstance(self.value, str) else float(self.value)

    def to_proto(self) -> event_pb2.Score:
        """Return the contract's Score."""
        proto = event_pb2.Score(
            name=to_text(self.name), explanation=to_text(self.explanation), higher_is_better=self.higher_is_better
        )
        proto.evaluator.name = to_text(self.evaluator)
        proto.evaluator.version = to_text(self.version)
        proto.evaluator.config_json = _json.encode_optional(self.config)
        if isinstance(self.value, bool):
            proto.passed = self.value
        elif isinstance(self.value, str):
            proto.label = to_text(self.value)
        elif self.value is not None:
            proto.number = self.value
        if self.error is not None:
            proto.error.CopyFrom(self.error.to_proto())
        return proto


class RecordedScore(Score):
    """Score of a run, given by a rule or by a person. `rule_id` is empty for a person's.

    `run_name` is the name of the scored run. `time` is when that run ended, or when it was scored if it had not.

    Example:
        await client.runs.score(run_id, name="helpful", value=True, evaluator="ada", labels={"team": "weather"})
        [score] = [score async for score in client.runs.scores(run_id)]
        assert (score.name, score.value, score.evaluator, score.rule_id) == ("helpful", True, "ada", "")
        assert (score.run_id, score.run_name, score.labels) == (run_id, "weather-agent", {"team": "weather"})
    """

    _contract: ClassVar[type[Message]] = event_pb2.ScoreRecorded
    _contract_names: ClassVar = {"run_id": "subject_run_id", "run_name": "subject_name", "time": "subject_time"}

    run_id: str
    run_name: str = ""
    rule_id: str = ""
    time: datetime | None = None
    labels: Mapping[str, str] = {}

    @classmethod
    def from_proto(cls, proto: Any, **given: Any) -> Self:
        """Return the value of the contract's ScoreRecorded."""
        return super(Score, cls).from_proto(proto, **dict(Score.from_proto(proto.score)), **given)


class ScoreFilter(Frozen):
    """Filter of scores. A sequence matches if any of its values does; all labels must match.

    The scored runs ended at or after `ended_after` and before `ended_before`.

    Example:
        this_week = ScoreFilter(rules=["quality"], ended_after=datetime.now(UTC) - timedelta(days=7))
        last_week = this_week.model_copy(
            update={"ended_after": datetime.now(UTC) - timedelta(days=14), "ended_before": this_week.ended_after}
        )
        assert await client.scores.compare(this_week, baseline=last_week) == ()
    """

    rules: Sequence[str] = ()
    names: Sequence[str] = ()
    evaluators: Sequence[str] = ()
    versions: Sequence[str] = ()
    run_names: Sequence[str] = ()
    labels: Mapping[str, str] = {}
    run_id: str = ""
    ended_after: datetime | None = None
    ended_before: datetime | None = None

    def to_proto(self) -> score_service_pb2.ScoreFilter:
        """Return the contract's ScoreFilter."""
        return score_filter(**dict(self))


def score_filter(
    *,
    rules: Iterable[str] = (),
    names: Iterable[str] = (),
    evaluators: Iterable[str] = (),
    versions: Iterable[str] = (),
    run_names: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    run_id: str = "",
    ended_after: datetime | None = None,
    ended_before: datetime | None = None,
) -> score_service_pb2.ScoreFilter:
    """Build a filter; everything set must hold. Raises ValueError for one str in place of several."""
    return score_service_pb2.ScoreFilter(
        rule_ids=several("rules", rules),
        names=several("names", names),
        evaluators=several("evaluators", evaluators),
        versions=several("versions", versions),
        run_names=several("run_names", run_names),
        labels=labels,
        subject_run_id=run_id,
        subject_ended_after=timestamp("ended_after", ended_after),
        subject_ended_before=timestamp("ended_before", ended_before),
    )


class ScoreGroup(Frozen):
    """Statistics of a group of scores.

    Dimensions that it is not grouped by are empty; `start` is None without a bucket. `count` is the number of scores,
    `error_count` of those whose evaluators failed, and `error_rate` their part. `mean`, `standard_deviation` and
    `percentiles` are over numbers, and verdicts as 0 and 1; `pass_rate` is over verdicts. A failure counts as a verdict
    that did not pass for an evaluator of verdicts; it adds nothing to the statistics of numbers. A statistic
    without enough scores is None. `label_counts` has the number of scores per class.

    Example:
        for value in (True, True, False):
            await client.runs.score(run_id, name="helpful", value=value)
        [group] = await client.scores.query(names=["helpful"], by=["name"])
        assert (group.name, group.count, round(group.pass_rate, 2)) == ("helpful", 3, 0.67)
    """

    _contract_names: ClassVar = {"start": "start_time"}

    rule_id: str = ""
    name: str = ""
    evaluator: str = ""
    version: str = ""
    run_name: str = ""
    labels: Mapping[str, str] = {}
    start: datetime | None = None
    count: int = 0
    error_count: int = 0
    error_rate: float = 0.0
    mean: float | None = None
    standard_deviation: float | None = None
    pass_rate: float | None = None
    percentiles: Mapping[float, float] = {}
    label_counts: Mapping[str, int] = {}

    @classmethod
    def from_proto(cls, proto: Any, *, percentiles: Iterable[float] = (), **given: Any) -> Self:
        """Return the value of the contract's ScoreGroup. `percentiles` are those asked for, in the same order."""
        found = dict(zip(percentiles, proto.percentiles, strict=False))
        return super().from_proto(proto, percentiles=found, **given)


class ScoreChange(Frozen):
    """Change of a score from the baseline to the candidate, by its means.

    The `difference` lies between `difference_low` and `difference_high` at the confidence asked for; these are None
    with too few scores. `error_trend` is REGRESSED if the evaluators' failures are a significantly higher part of the
    scores.

    Example:
        for version, value in (("1", 0.9), ("2", 0.4)):
            for _ in range(5):
                await client.runs.score(run_id, name="correctness", value=value, labels={"version": version})
        candidate, baseline = ScoreFilter(labels={"version": "2"}), ScoreFilter(labels={"version": "1"})
        [change] = await client.scores.compare(candidate, baseline=baseline, min_count=5)
        assert (change.name, change.trend, round(change.difference, 1)) == ("correctness", "regressed", -0.5)
    """

    name: str
    baseline_count: int
    candidate_count: int
    baseline_mean: float | None = None
    candidate_mean: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    trend: ScoreTrend = ScoreTrend.UNSPECIFIED
    baseline_error_count: int = 0
    candidate_error_count: int = 0
    baseline_error_rate: float | None = None
    candidate_error_rate: float | None = None
    error_trend: ScoreTrend = ScoreTrend.UNSPECIFIED
    higher_is_better: bool | None = None


def feedback(
    name: str, value: float | bool | str, explanation: str, evaluator: str, higher_is_better: bool | None
) -> event_pb2.Score:
    """Return a person's score. Raises TypeError for a value that is not a number, a bool or a str."""
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"value must be a number, a bool or a class, not {value!r}")
    score = Score(
        name=name, value=value, explanation=explanation, evaluator=evaluator, higher_is_better=higher_is_better
    )
    return score.to_proto()
