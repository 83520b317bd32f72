"""Scores over time as people read them: single ones, groups of them, and what has become of them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, Self

from lavant.client._arguments import several, timestamp
from lavant.client._frozen import Frozen
from lavant.client._models import time_of
from lavant.client._rows import Score
from lavant.client._states import ScoreVerdict, verdict_of
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


class RecordedScore(Score):
    """A score on a run: by a rule, or by somebody afterwards, whose `rule_id` is empty.

    `run_name` is the name of the run that was judged, the agent's; `time` is when that run ended, or when it was
    scored if it had not.

    Example:
        await client.runs.score(run_id, name="helpful", value=True, evaluator="ada", labels={"team": "weather"})
        [score] = [score async for score in client.runs.scores(run_id)]
        assert (score.name, score.value, score.evaluator, score.rule_id) == ("helpful", True, "ada", "")
        assert (score.run_id, score.run_name, score.labels) == (run_id, "weather-agent", {"team": "weather"})
    """

    run_id: str
    run_name: str = ""
    rule_id: str = ""
    time: datetime | None = None
    labels: Mapping[str, str] = {}

    @classmethod
    def from_event(cls, proto: event_pb2.ScoreRecorded) -> Self:
        """Read it from the contract's ScoreRecorded."""
        return cls(
            **dict(Score.from_proto(proto.score)),
            run_id=proto.subject_run_id,
            run_name=proto.subject_name,
            rule_id=proto.rule_id,
            time=time_of(proto, "subject_time"),
            labels=dict(proto.labels),
        )


class ScoreFilter(Frozen):
    """Which scores: any of the words given, all of the labels, and runs that ended within the bounds.

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
        """Write it as the contract's ScoreFilter."""
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
        start_time=timestamp("ended_after", ended_after),
        end_time=timestamp("ended_before", ended_before),
    )


class ScoreGroup(Frozen):
    """What a group of scores adds up to. What it is not grouped by is empty; `start` is None without a bucket.

    `count` has all scores, `error_count` those that are failures of their evaluators, `error_rate` their part. `mean`,
    `standard_deviation` and `percentiles` are of numbers, and of verdicts as 0 and 1; `pass_rate` is of verdicts. A
    failure of an evaluator that gives verdicts is one that did not pass; one that gives numbers adds nothing when it
    fails. What there is not enough of is None. `label_counts` tells how often each class was given.

    Example:
        for value in (True, True, False):
            await client.runs.score(run_id, name="helpful", value=value)
        [group] = await client.scores.query(names=["helpful"], by=["name"])
        assert (group.name, group.count, round(group.pass_rate, 2)) == ("helpful", 3, 0.67)
    """

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
    def from_proto(cls, proto: score_service_pb2.ScoreGroup, percentiles: Iterable[float]) -> Self:
        """Read it from the contract's ScoreGroup, with the percentiles in the order in which they were asked for."""
        return cls(
            rule_id=proto.rule_id,
            name=proto.name,
            evaluator=proto.evaluator,
            version=proto.version,
            run_name=proto.run_name,
            labels=dict(proto.labels),
            start=time_of(proto, "start_time"),
            count=proto.count,
            error_count=proto.error_count,
            error_rate=proto.error_rate,
            mean=proto.mean if proto.HasField("mean") else None,
            standard_deviation=proto.standard_deviation if proto.HasField("standard_deviation") else None,
            pass_rate=proto.pass_rate if proto.HasField("pass_rate") else None,
            percentiles=dict(zip(percentiles, proto.percentiles, strict=False)),
            label_counts=dict(proto.label_counts),
        )


class ScoreChange(Frozen):
    """What has become of a score, from the baseline to the candidate, as its mean on both sides tells.

    The `difference` lies between `difference_low` and `difference_high` with the confidence asked for; these are None
    where there are too few scores to judge. Failures of evaluators stand beside: `error_verdict` is "regressed" if
    their part of all scores is higher, and not by chance.

    Example:
        for version, value in (("1", 0.9), ("2", 0.4)):
            for _ in range(5):
                await client.runs.score(run_id, name="correctness", value=value, labels={"version": version})
        candidate, baseline = ScoreFilter(labels={"version": "2"}), ScoreFilter(labels={"version": "1"})
        [change] = await client.scores.compare(candidate, baseline=baseline, min_count=5)
        assert (change.name, change.verdict, round(change.difference, 1)) == ("correctness", "regressed", -0.5)
    """

    name: str
    baseline_count: int
    candidate_count: int
    baseline_mean: float | None = None
    candidate_mean: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    verdict: ScoreVerdict = ScoreVerdict.UNSPECIFIED
    baseline_error_count: int = 0
    candidate_error_count: int = 0
    baseline_error_rate: float | None = None
    candidate_error_rate: float | None = None
    error_verdict: ScoreVerdict = ScoreVerdict.UNSPECIFIED

    @classmethod
    def from_proto(cls, proto: score_service_pb2.ScoreChange) -> Self:
        """Read it from the contract's ScoreChange."""
        told = {field.name: value for field, value in proto.ListFields() if field.has_presence}
        return cls(
            name=proto.name,
            baseline_count=proto.baseline_count,
            candidate_count=proto.candidate_count,
            verdict=verdict_of(proto.verdict),
            baseline_error_count=proto.baseline_error_count,
            candidate_error_count=proto.candidate_error_count,
            error_verdict=verdict_of(proto.error_verdict),
            **told,
        )


def feedback(name: str, value: float | bool | str, explanation: str, evaluator: str) -> event_pb2.Score:
    """Write what somebody says of a run. Raises TypeError for a value that is no score."""
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"value must be a number, a bool or a class, not {value!r}")
    score = Score(name=to_text(name), value=value, explanation=explanation, evaluator=evaluator)
    return score.to_proto()
