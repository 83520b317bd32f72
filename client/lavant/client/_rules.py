"""Rules as people read and change them: which finished runs are judged, and by whom. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import model_validator

from lavant.client import _json
from lavant.client._arguments import choose, exact_duration, run_kind, run_state, several
from lavant.client._frozen import Frozen
from lavant.client._models import duration_of, time_of
from lavant.client._states import RunKind, RunState, ScoreStatistic, kind_of, state_of, statistic_of
from lavant.contract.text import to_text
from lavant.v1 import event_pb2, rule_pb2

_STATISTICS = {name.removeprefix("SCORE_STATISTIC_").lower(): value for name, value in rule_pb2.ScoreStatistic.items()}


class EvaluatorInfo(Frozen):
    """An evaluator, as a rule names it: by the name that its scores are known by.

    Scores are comparable only with those of the same `version`; `config` are its settings.

    Example:
        judge = EvaluatorInfo(name="correctness", version="2", config={"model": "openai:gpt-5"})
        rule = await client.rules.create("quality", evaluators=[judge, "politeness"])
        assert [evaluator.name for evaluator in rule.evaluators] == ["correctness", "politeness"]
    """

    name: str
    version: str = ""
    config: Any = None

    @classmethod
    def from_proto(cls, proto: event_pb2.Evaluator) -> Self:
        """Read it from the contract's Evaluator."""
        return cls(name=proto.name, version=proto.version, config=_json.decode(proto.config_json))

    def to_proto(self) -> event_pb2.Evaluator:
        """Write it as the contract's Evaluator."""
        return event_pb2.Evaluator(
            name=to_text(self.name),
            version=to_text(self.version),
            config_json=_json.encode_optional(self.config),
        )


class SampleFilter(Frozen):
    """Which finished runs a rule looks at: everything set must hold.

    Kinds, states and names are any of those given; without any, they are agents, all terminal states, all names.
    Values of labels and names may hold `*` and `?`. Texts are looked for in the JSON, whatever the case.

    Example:
        rule = await client.rules.create("slow", names=["weather-*"], min_duration=30, has_error=False)
        assert rule.filter == SampleFilter(names=("weather-*",), min_duration=timedelta(seconds=30), has_error=False)
    """

    kinds: tuple[RunKind, ...] = ()
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    states: tuple[RunState, ...] = ()
    min_duration: timedelta | None = None
    max_duration: timedelta | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    has_error: bool | None = None
    input_contains: str = ""
    output_contains: str = ""

    @classmethod
    def from_proto(cls, proto: rule_pb2.SampleFilter) -> Self:
        """Read it from the contract's SampleFilter."""
        return cls(
            kinds=tuple(map(kind_of, proto.kinds)),
            names=tuple(proto.names),
            labels=dict(proto.labels),
            states=tuple(map(state_of, proto.states)),
            min_duration=duration_of(proto, "min_duration"),
            max_duration=duration_of(proto, "max_duration"),
            min_tokens=proto.min_tokens if proto.HasField("min_tokens") else None,
            max_tokens=proto.max_tokens if proto.HasField("max_tokens") else None,
            has_error=proto.has_error if proto.HasField("has_error") else None,
            input_contains=proto.input_contains,
            output_contains=proto.output_contains,
        )

    def to_proto(self) -> rule_pb2.SampleFilter:
        """Write it as the contract's SampleFilter. Raises ValueError for a kind or state that does not exist."""
        return rule_pb2.SampleFilter(
            kinds=[run_kind(kind, "kinds") for kind in several("kinds", self.kinds)],
            names=several("names", self.names),
            labels=self.labels,
            states=[run_state(state, "states") for state in several("states", self.states)],
            min_duration=exact_duration(self.min_duration),
            max_duration=exact_duration(self.max_duration),
            min_tokens=self.min_tokens,
            max_tokens=self.max_tokens,
            has_error=self.has_error,
            input_contains=self.input_contains,
            output_contains=self.output_contains,
        )


class Alert(Frozen):
    """Tells when a rule's scores leave their bounds, and when they are back; see `client.scores.alerts`.

    It fires `below` or above a threshold, of the scores recorded in the last `window`; with fewer than `min_count` of
    these it stays as it is. Without a `score_name` all of the rule's scores count. A change is also posted to the
    `webhook_url`, as JSON, where the server's settings allow the address.

    Raises ValueError unless it has one threshold.

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
    min_count: int = 1
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
            min_count=proto.min_count or 1,
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


class RuleProgress(Frozen):
    """How far a rule is, since its creation: runs that it has looked at, drawn of these, and what became of them.

    Example:
        rule = await client.rules.create("quality")
        assert rule.progress == RuleProgress(runs_seen=0, runs_drawn=0, runs_judged=0, runs_failed=0)
    """

    runs_seen: int = 0
    runs_drawn: int = 0
    runs_judged: int = 0
    runs_failed: int = 0

    @classmethod
    def from_proto(cls, proto: rule_pb2.RuleProgress) -> Self:
        """Read it from the contract's RuleProgress."""
        return cls(**{field.name: value for field, value in proto.ListFields()})


class Backfill(Frozen):
    """How far a rule's look at runs is that it has not seen. `done`: all of them were looked at.

    Example:
        await client.rules.create("quality")
        rule = await client.rules.backfill("quality", created_after=datetime.now(UTC) - timedelta(days=7))
        assert rule.backfill.created_before is None
    """

    created_after: datetime | None = None
    created_before: datetime | None = None
    runs_seen: int = 0
    runs_drawn: int = 0
    done: bool = False

    @classmethod
    def from_proto(cls, proto: rule_pb2.Backfill) -> Self:
        """Read it from the contract's Backfill."""
        return cls(
            created_after=time_of(proto, "created_after"),
            created_before=time_of(proto, "created_before"),
            runs_seen=proto.runs_seen,
            runs_drawn=proto.runs_drawn,
            done=proto.done,
        )


class Rule(Frozen):
    """Which finished runs are judged, by whom, and what is to be heard of their scores, as it stood when it was read.

    `sample_rate` is the part of the runs that is judged, decided by their ids: rules of one rate and `salt` judge the
    same ones. `score_labels` are added to every score. A run is tried `max_attempts` times before it is recorded as
    failed. What follows `alerts` is the server's: `revision` grows with each change, and `evaluation_id` is the
    evaluation that the results go to now, which can be streamed like any other.

    Example:
        rule = await client.rules.create("quality", names=["weather-*"], evaluators=["correctness"])
        rule = await client.rules.update(rule.model_copy(update={"sample_rate": 0.1, "enabled": False}))
        assert (rule.revision, rule.sample_rate, rule.enabled) == (2, 0.1, False)
    """

    id: str
    filter: SampleFilter = SampleFilter()
    sample_rate: float = 1.0
    salt: str = ""
    evaluators: tuple[EvaluatorInfo, ...] = ()
    score_labels: Mapping[str, str] = {}
    enabled: bool = True
    max_attempts: int = 5
    alerts: tuple[Alert, ...] = ()
    revision: int = 0
    created: datetime | None = None
    updated: datetime | None = None
    evaluation_id: str = ""
    progress: RuleProgress = RuleProgress()
    backfill: Backfill | None = None

    @classmethod
    def from_proto(cls, proto: rule_pb2.Rule) -> Self:
        """Read it from the contract's Rule."""
        return cls(
            id=proto.rule_id,
            filter=SampleFilter.from_proto(proto.filter),
            sample_rate=proto.sample_rate if proto.HasField("sample_rate") else 1.0,
            salt=proto.salt,
            evaluators=tuple(map(EvaluatorInfo.from_proto, proto.evaluators)),
            score_labels=dict(proto.labels),
            enabled=not proto.paused,
            max_attempts=proto.max_attempts or 5,
            alerts=tuple(map(Alert.from_proto, proto.alerts)),
            revision=proto.revision,
            created=time_of(proto, "create_time"),
            updated=time_of(proto, "update_time"),
            evaluation_id=proto.evaluation_id,
            progress=RuleProgress.from_proto(proto.progress),
            backfill=Backfill.from_proto(proto.backfill) if proto.HasField("backfill") else None,
        )

    def to_proto(self) -> rule_pb2.Rule:
        """Write what people may set, and the revision, as the contract's Rule."""
        return rule_pb2.Rule(
            rule_id=self.id,
            filter=self.filter.to_proto(),
            sample_rate=self.sample_rate,
            salt=self.salt,
            evaluators=[evaluator_info(evaluator).to_proto() for evaluator in self.evaluators],
            labels=self.score_labels,
            paused=not self.enabled,
            max_attempts=self.max_attempts,
            alerts=[alert.to_proto() for alert in self.alerts],
            revision=self.revision,
        )

    def says_the_same_as(self, other: "Rule") -> bool:
        """Whether two rules differ in nothing that people may set."""
        return self._settings() == other._settings()

    def _settings(self) -> rule_pb2.Rule:
        settings = self.to_proto()
        settings.ClearField("revision")
        return settings


def evaluator_infos(evaluators: Iterable[Any]) -> tuple[EvaluatorInfo, ...]:
    """Describe evaluators, however they were given. Raises ValueError for one str in place of several."""
    if isinstance(evaluators, str):
        several("evaluators", evaluators)
    return tuple(map(evaluator_info, evaluators))


def evaluator_info(evaluator: Any) -> EvaluatorInfo:
    """Describe an evaluator that is given by its name, by an EvaluatorInfo, or as itself, one of pydantic-evals'."""
    if isinstance(evaluator, EvaluatorInfo):
        return evaluator
    if isinstance(evaluator, str):
        return EvaluatorInfo(name=evaluator)
    from lavant.client.integrations._judging_described import describe  # Needs an extra.

    described = describe(evaluator)
    name = str(evaluator.get_default_evaluation_name())
    return EvaluatorInfo(name=name, version=described.version, config=described.config)
