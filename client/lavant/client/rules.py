"""Rules: which finished runs are evaluated, and by which evaluators."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, Self

from lavant.client._wire import json_text as _json
from lavant.client._wire.arguments import exact_duration, run_kind, run_state, several
from lavant.client.alerts import Alert, AlertStatus
from lavant.client.models import ErrorInfo, Frozen
from lavant.client.states import RunKind, RunState
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
    """Evaluator of a rule, by the name of its scores.

    Scores are comparable only within the same `version`; `config` has the evaluator's settings. An evaluator whose
    scores have other names, such as one that returns a mapping, lists them in `score_names`: alerts can refer to them,
    and a failure of the evaluator is a failed score of each.

    Example:
        judge = EvaluatorInfo(name="correctness", version="2", config={"model": "openai:gpt-5"})
        rule = await client.rules.create("quality", evaluators=[judge, "politeness"])
        assert [evaluator.name for evaluator in rule.evaluators] == ["correctness", "politeness"]
    """

    _contract: ClassVar = event_pb2.Evaluator

    name: str
    version: str = ""
    config: Any = None
    score_names: tuple[str, ...] = ()

    def to_proto(self) -> event_pb2.Evaluator:
        """Return the contract's Evaluator."""
        return event_pb2.Evaluator(
            name=to_text(self.name),
            version=to_text(self.version),
            config_json=_json.encode_optional(self.config),
            score_names=several("score_names", self.score_names),
        )


class SampleFilter(Frozen):
    """Filter of a rule. All fields that are set must match.

    `kinds`, `names` and `states` match if any of their values does; empty, they match agents, all names and all
    terminal states. Names and values of labels may contain `*` and `?`. `input_contains` and `output_contains` search
    the JSON text, ignoring case.

    Example:
        rule = await client.rules.create("slow", names=["weather-*"], min_duration=30, has_error=False)
        assert rule.filter == SampleFilter(names=("weather-*",), min_duration=timedelta(seconds=30), has_error=False)
    """

    _contract: ClassVar = rule_pb2.SampleFilter

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

    def to_proto(self) -> rule_pb2.SampleFilter:
        """Return the contract's SampleFilter. Raises ValueError for an unknown kind or state."""
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
    """Progress of a rule since its creation, in numbers of runs, and the present state of its samples.

    `samples_waiting` are leased to no worker, of which `samples_delayed` wait for their next attempt; `samples_held`
    are being evaluated. `last_error` is why the last sample was returned or failed; None after a later one was
    evaluated.

    Example:
        rule = await client.rules.create("quality")
        assert rule.progress == RuleProgress(runs_examined=0, runs_selected=0, runs_evaluated=0, runs_failed=0)
    """

    _contract: ClassVar = rule_pb2.RuleProgress

    runs_examined: int = 0
    runs_selected: int = 0
    runs_evaluated: int = 0
    runs_failed: int = 0
    samples_waiting: int = 0
    samples_delayed: int = 0
    samples_held: int = 0
    last_error: ErrorInfo | None = None


class Backfill(Frozen):
    """Progress of a rule's backfill. `done` is whether all past runs were seen.

    `again` says which runs are evaluated once more; None if only runs that the rule has not seen are.

    Example:
        await client.rules.create("quality")
        rule = await client.rules.backfill("quality", created_after=datetime.now(UTC) - timedelta(days=7))
        assert rule.backfill.created_before is None
    """

    _contract: ClassVar = rule_pb2.Backfill

    created_after: datetime | None = None
    created_before: datetime | None = None
    runs_examined: int = 0
    runs_selected: int = 0
    done: bool = False
    again: "Again | None" = None

    @classmethod
    def from_proto(cls, proto: Any, **given: Any) -> Self:
        """Return the value of the contract's Backfill."""
        return super().from_proto(proto, again=_AGAIN.get(proto.mode), **given)


class Rule(Frozen):
    """Rule that samples finished runs for evaluation.

    `sample_rate` is the part of matching runs that is sampled, from 0 to 1. It is decided by the run's id: rules with
    the same rate and `salt` sample the same runs. `score_labels` are added to every score. A run is tried
    `max_attempts` times before it is recorded as failed. The fields after `alerts` are set by the server: `revision`
    grows with each change; `evaluation_id` is the evaluation that receives the results, which can be streamed;
    `alert_statuses` has one entry per alert, and is empty while the server is reading the scores.

    Example:
        rule = await client.rules.create("quality", names=["weather-*"], evaluators=["correctness"])
        rule = await client.rules.update(rule, sample_rate=0.1, paused=True)
        assert (rule.revision, rule.sample_rate, rule.paused) == (2, 0.1, True)
    """

    _contract: ClassVar = rule_pb2.Rule
    _contract_names: ClassVar = {
        "id": "rule_id",
        "score_labels": "labels",
        "created": "create_time",
        "updated": "update_time",
    }

    id: str
    filter: SampleFilter = SampleFilter()
    sample_rate: float = 1.0
    salt: str = ""
    evaluators: tuple[EvaluatorInfo, ...] = ()
    score_labels: Mapping[str, str] = {}
    paused: bool = False
    max_attempts: int = 5
    alerts: tuple[Alert, ...] = ()
    revision: int = 0
    created: datetime | None = None
    updated: datetime | None = None
    evaluation_id: str = ""
    progress: RuleProgress = RuleProgress()
    backfill: Backfill | None = None
    alert_statuses: tuple[AlertStatus, ...] = ()

    def to_proto(self) -> rule_pb2.Rule:
        """Return the contract's Rule: the fields that callers set, and the revision."""
        return rule_pb2.Rule(
            rule_id=self.id,
            filter=self.filter.to_proto(),
            sample_rate=self.sample_rate,
            salt=self.salt,
            evaluators=[evaluator_info(evaluator).to_proto() for evaluator in self.evaluators],
            labels=self.score_labels,
            paused=self.paused,
            max_attempts=self.max_attempts,
            alerts=[alert.to_proto() for alert in self.alerts],
            revision=self.revision,
        )


def evaluator_infos(evaluators: Iterable[Any]) -> tuple[EvaluatorInfo, ...]:
    """Describe evaluators, given in any form. Raises ValueError for a single str."""
    if isinstance(evaluators, str):
        several("evaluators", evaluators)
    return tuple(map(evaluator_info, evaluators))


def evaluator_info(evaluator: Any) -> EvaluatorInfo:
    """Describe an evaluator, given by its name, as an EvaluatorInfo, or as one of pydantic-evals."""
    if isinstance(evaluator, EvaluatorInfo):
        return evaluator
    if isinstance(evaluator, str):
        return EvaluatorInfo(name=evaluator)
    from lavant.client.evals.scoring import describe  # needs an extra

    return describe(evaluator).model_copy(update={"name": str(evaluator.get_default_evaluation_name())})
