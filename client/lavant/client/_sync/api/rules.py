# Generated from _async/api/rules.py by client/unasync.py: change that file instead.
"""Calls about rules, which select finished runs for evaluation."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from lavant.client._sync.transport import Connection
from lavant.client._wire.arguments import check_optional_seconds, choose, run_kind, run_state, several, timestamp
from lavant.client.alerts import Alert
from lavant.client.rules import BACKFILL_MODES, Again, EvaluatorInfo, Rule, SampleFilter, evaluator_infos
from lavant.client.states import RunKind, RunState
from lavant.v1.rule_pb2 import BACKFILL_MODE_UNSPECIFIED
from lavant.v1.rule_service_pb2 import (
    BackfillRuleRequest,
    CreateRuleRequest,
    DeleteRuleRequest,
    GetRuleRequest,
    ListRulesRequest,
    UpdateRuleRequest,
)

if TYPE_CHECKING:
    from pydantic_evals.evaluators import Evaluator


class Rules:
    """Calls about rules, at `client.rules`. A rule samples the finished runs that match its filter, for evaluation.

    A rule examines each run that finishes while it is not paused exactly once. `client.evaluations.process_stream`
    evaluates its samples. Calls with a `rule_id` raise RuleNotFound if the rule does not exist or belongs to another
    tenant.

    Example:
        client.rules.create("quality", names=["weather-*"], sample_rate=0.1, evaluators=["correctness"])
        assert [rule.id for rule in client.rules.list()] == ["quality"]
        rule = client.rules.backfill("quality")
        client.rules.delete("quality")
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        rule_id: str,
        *,
        kinds: Iterable[str] = (),
        names: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        states: Iterable[str] = (),
        min_duration: float | None = None,
        max_duration: float | None = None,
        min_tokens: int | None = None,
        max_tokens: int | None = None,
        has_error: bool | None = None,
        input_contains: str = "",
        output_contains: str = "",
        sample_rate: float = 1.0,
        salt: str = "",
        evaluators: "Iterable[str | EvaluatorInfo | Evaluator[Any, Any, Any]]" = (),
        score_labels: Mapping[str, str] | None = None,
        paused: bool = False,
        max_attempts: int = 5,
        alerts: Iterable[Alert] = (),
    ) -> Rule:
        """Create a rule for runs that finish from now on, or return the rule that has this id and the same settings.

        The arguments up to `output_contains` are the fields of a SampleFilter; `labels` are labels of runs.
        `score_labels` are added to the rule's scores. Durations are in seconds. `evaluators` are names, EvaluatorInfo
        or evaluators as for `process_stream`; a run that cannot be evaluated gets a failed score of each. Raises
        RuleExists if a rule with other settings has the id.

        Example:
            from lavant.client.evals import correctness, success

            judges = [correctness("openai:gpt-5"), success("openai:gpt-5")]
            rule = client.rules.create("quality", sample_rate=0.1, states=["succeeded"], evaluators=judges)
            assert [judge.name for judge in rule.evaluators] == ["correctness", "success"]
        """
        matching = SampleFilter(
            kinds=tuple(RunKind.from_number(run_kind(kind, "kinds")) for kind in several("kinds", kinds)),
            names=tuple(several("names", names)),
            labels=labels or {},
            states=tuple(RunState.from_number(run_state(state, "states")) for state in several("states", states)),
            min_duration=_seconds("min_duration", min_duration),
            max_duration=_seconds("max_duration", max_duration),
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            has_error=has_error,
            input_contains=input_contains,
            output_contains=output_contains,
        )
        rule = Rule(
            id=rule_id,
            filter=matching,
            sample_rate=sample_rate,
            salt=salt,
            evaluators=evaluator_infos(evaluators),
            score_labels=score_labels or {},
            paused=paused,
            max_attempts=max_attempts,
            alerts=tuple(alerts),
        )
        request = CreateRuleRequest(rule=rule.to_proto())
        response = self._connection.call(lambda stubs: stubs.rules.CreateRule, request)
        return Rule.from_proto(response.rule)

    def get(self, rule_id: str) -> Rule:
        """Return a rule with its progress."""
        request = GetRuleRequest(rule_id=rule_id)
        response = self._connection.call(lambda stubs: stubs.rules.GetRule, request)
        return Rule.from_proto(response.rule)

    def list(self, *, page_size: int | None = None) -> Iterator[Rule]:
        """Yield all rules, the newest first, in pages.

        `page_size` is the number of rules per call: 1 to 1,000; default 100.
        """
        request = ListRulesRequest(page_size=page_size)
        for page in self._connection.pages(lambda stubs: stubs.rules.ListRules, request):
            for rule in page.rules:
                yield Rule.from_proto(rule)

    def update(
        self,
        rule: Rule | str,
        *,
        matching: SampleFilter | None = None,
        sample_rate: float | None = None,
        salt: str | None = None,
        evaluators: "Iterable[str | EvaluatorInfo | Evaluator[Any, Any, Any]] | None" = None,
        score_labels: Mapping[str, str] | None = None,
        paused: bool | None = None,
        max_attempts: int | None = None,
        alerts: Iterable[Alert] | None = None,
    ) -> Rule:
        """Change the settings of a rule that are given; all others stay. Samples that were selected stay selected.

        `matching` replaces the whole filter. Raises RuleChanged if `rule` is given as it was read, and somebody else
        has changed it since; given by its ID, it is changed whatever its revision.

        Example:
            rule = client.rules.create("quality")
            slow = rule.filter.model_copy(update={"min_duration": timedelta(seconds=30)})
            rule = client.rules.update(rule, matching=slow)
            assert rule.filter.min_duration == timedelta(seconds=30)
        """
        known = rule if isinstance(rule, Rule) else Rule(id=rule)
        changes: dict[str, Any] = {
            "filter": matching,
            "sample_rate": sample_rate,
            "salt": salt,
            "evaluators": None if evaluators is None else evaluator_infos(evaluators),
            "score_labels": score_labels,
            "paused": paused,
            "max_attempts": max_attempts,
            "alerts": None if alerts is None else tuple(alerts),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        request = UpdateRuleRequest(
            rule=Rule(id=known.id, revision=known.revision, **given).to_proto(),
            update_mask=FieldMask(paths=["labels" if name == "score_labels" else name for name in given]),
        )
        response = self._connection.call(lambda stubs: stubs.rules.UpdateRule, request)
        return Rule.from_proto(response.rule)

    def delete(self, rule_id: str) -> None:
        """Delete a rule and its samples. Its scores are kept."""
        self._connection.call(lambda stubs: stubs.rules.DeleteRule, DeleteRuleRequest(rule_id=rule_id))

    def backfill(
        self,
        rule_id: str,
        *,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        again: Again | None = None,
    ) -> Rule:
        """Evaluate past runs: those from before the rule's creation, and those that ended while it was paused.

        `created_after` is inclusive, `created_before` exclusive. With `again`, runs that the rule has scored are
        evaluated once more: those with "errors" in their last evaluation, those without a score of the present
        "version" of an evaluator of the rule, or "all". Earlier scores are kept. Runs that finish meanwhile come first.
        The rule's `backfill` has the progress. Raises BackfillUnderWay while a backfill with other arguments has not
        finished.

        Example:
            client.rules.create("quality")
            client.rules.backfill("quality", created_after=datetime.now(UTC) - timedelta(days=30))
            client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
            rule = client.rules.get("quality")
            assert rule.backfill.done and rule.backfill.runs_selected > 0
            rule = client.rules.backfill("quality", again="errors")
            assert rule.backfill.again == "errors"
        """
        request = BackfillRuleRequest(
            rule_id=rule_id,
            created_after=timestamp("created_after", created_after),
            created_before=timestamp("created_before", created_before),
            mode=BACKFILL_MODE_UNSPECIFIED if again is None else choose("again", again, BACKFILL_MODES),
        )
        response = self._connection.call(lambda stubs: stubs.rules.BackfillRule, request)
        return Rule.from_proto(response.rule)


def _seconds(name: str, value: float | None) -> timedelta | None:
    seconds = check_optional_seconds(name, value)
    return None if seconds is None else timedelta(seconds=seconds)
