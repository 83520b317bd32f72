"""Rules as people read and change them: which finished runs are judged, and by whom. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from lavant.client import _json
from lavant.client._alerts import Alert, AlertStatus
from lavant.client._arguments import exact_duration, run_kind, run_state, several
from lavant.client._frozen import Frozen
from lavant.client._models import ErrorInfo, duration_of, time_of
from lavant.client._states import RunKind, RunState, kind_of, state_of
from lavant.contract.text import to_text
from lavant.v1 import event_pb2, rule_pb2

Again = Literal["errors", "version", "all"]

_AGAIN: "dict[rule_pb2.BackfillMode.ValueType, Again]" = {
    rule_pb2.BACKFILL_MODE_ERRORS: "errors",
    rule_pb2.BACKFILL_MODE_VERSION: "version",
    rule_pb2.BACKFILL_MODE_ALL: "all",
}
BACKFILL_MODES: "dict[str, rule_pb2.BackfillMode.ValueType]" = {again: mode for mode, again in _AGAIN.items()}


class EvaluatorInfo(Frozen):
    """An evaluator, as a rule names it: by the name that its scores are known by.

    Scores are comparable only with those of the same `version`; `config` are its settings. An evaluator whose scores
    have other names than its own, as one that returns a mapping, lists them in `score_names`: alerts may name these,
    and a failure of the evaluator is one of each.

    Example:
        judge = EvaluatorInfo(name="correctness", version="2", config={"model": "openai:gpt-5"})
        rule = await client.rules.create("quality", evaluators=[judge, "politeness"])
        assert [evaluator.name for evaluator in rule.evaluators] == ["correctness", "politeness"]
    """

    name: str
    version: str = ""
    config: Any = None
    score_names: tuple[str, ...] = ()

    @classmethod
    def from_proto(cls, proto: event_pb2.Evaluator) -> Self:
        """Read it from the contract's Evaluator."""
        return cls(
            name=proto.name,
            version=proto.version,
            config=_json.decode(proto.config_json),
            score_names=tuple(proto.score_names),
        )

    def to_proto(self) -> event_pb2.Evaluator:
        """Write it as the contract's Evaluator."""
        return event_pb2.Evaluator(
            name=to_text(self.name),
            version=to_text(self.version),
            config_json=_json.encode_optional(self.config),
            score_names=several("score_names", self.score_names),
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


class RuleProgress(Frozen):
    """How far a rule is, since its creation: runs that it has looked at, drawn of these, and what became of them.

    Of its samples now, `samples_waiting` are held by no worker, `samples_delayed` of these wait for their next
    attempt, and `samples_held` are being evaluated. `last_error` is why the last sample was returned or failed; None
    once a later one was evaluated.

    Example:
        rule = await client.rules.create("quality")
        assert rule.progress == RuleProgress(runs_seen=0, runs_drawn=0, runs_judged=0, runs_failed=0)
    """

    runs_seen: int = 0
    runs_drawn: int = 0
    runs_judged: int = 0
    runs_failed: int = 0
    samples_waiting: int = 0
    samples_delayed: int = 0
    samples_held: int = 0
    last_error: ErrorInfo | None = None

    @classmethod
    def from_proto(cls, proto: rule_pb2.RuleProgress) -> Self:
        """Read it from the contract's RuleProgress."""
        counts = {field.name: value for field, value in proto.ListFields() if field.name != "last_error"}
        return cls(
            **counts, last_error=ErrorInfo.from_proto(proto.last_error) if proto.HasField("last_error") else None
        )


class Backfill(Frozen):
    """How far a rule's backfill is. `done`: all runs were looked at.

    `again` tells which runs are evaluated once more; None: those that the rule has not seen are evaluated.

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
    again: "Again | None" = None

    @classmethod
    def from_proto(cls, proto: rule_pb2.Backfill) -> Self:
        """Read it from the contract's Backfill."""
        return cls(
            created_after=time_of(proto, "created_after"),
            created_before=time_of(proto, "created_before"),
            runs_seen=proto.runs_seen,
            runs_drawn=proto.runs_drawn,
            done=proto.done,
            again=_AGAIN.get(proto.mode),
        )


class Rule(Frozen):
    """Which finished runs are judged, by whom, and what is to be heard of their scores, as it stood when it was read.

    `sample_rate` is the part of the runs that is judged, decided by their ids: rules of one rate and `salt` judge the
    same ones. `score_labels` are added to every score. A run is tried `max_attempts` times before it is recorded as
    failed. What follows `alerts` is the server's: `revision` grows with each change, and `evaluation_id` is the
    evaluation that the results go to now, which can be streamed like any other. `alert_statuses` has the state of
    each alert, in their order; none while the server still reads the scores.

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
    alert_statuses: tuple[AlertStatus, ...] = ()

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
            alert_statuses=tuple(map(AlertStatus.from_proto, proto.alert_statuses)),
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
