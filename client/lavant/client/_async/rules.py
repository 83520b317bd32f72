"""Rules: which finished runs are judged."""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from lavant.client._alerts import Alert
from lavant.client._arguments import check_optional_seconds, choose, run_kind, run_state, several, timestamp
from lavant.client._async.connection import Connection
from lavant.client._errors import BackfillUnderWay, RuleChanged
from lavant.client._rules import BACKFILL_MODES, Again, EvaluatorInfo, Rule, SampleFilter, evaluator_infos
from lavant.client._states import kind_of, state_of
from lavant.v1.evaluation_service_pb2 import (
    BackfillRuleRequest,
    CreateRuleRequest,
    DeleteRuleRequest,
    GetRuleRequest,
    ListRulesRequest,
    UpdateRuleRequest,
)
from lavant.v1.rule_pb2 import BACKFILL_MODE_UNSPECIFIED

if TYPE_CHECKING:
    from pydantic_evals.evaluators import Evaluator


class AsyncRules:
    """What can be done with rules; found at `client.rules`. Each has finished runs judged, of which it draws a part.

    A rule sees each run that finishes while it is enabled exactly once. Who judges is told by
    `client.evaluations.process_stream`. Raises RuleNotFound for a rule that does not exist or is not yours.

    Example:
        await client.rules.create("quality", names=["weather-*"], sample_rate=0.1, evaluators=["correctness"])
        assert [rule.id async for rule in client.rules.list()] == ["quality"]
        rule = await client.rules.backfill("quality")
        await client.rules.delete("quality")
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
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
        enabled: bool = True,
        max_attempts: int = 5,
        alerts: Iterable[Alert] = (),
    ) -> Rule:
        """Create a rule, which sees runs that finish from now on; or find the one that says the same.

        What comes first is a SampleFilter: `labels` are those of the runs. `score_labels` are added to their scores.
        Durations are in seconds. `evaluators` are told by their names, or as they are given to `process_stream`; a run
        that could not be judged has a failed score of each. Raises RuleExists if another rule has the id.

        Example:
            from lavant.client.integrations.judging import correctness, success

            judges = [correctness("openai:gpt-5"), success("openai:gpt-5")]
            rule = await client.rules.create("quality", sample_rate=0.1, states=["succeeded"], evaluators=judges)
            assert [judge.name for judge in rule.evaluators] == ["correctness", "success"]
        """
        matching = SampleFilter(
            kinds=tuple(kind_of(run_kind(kind, "kinds")) for kind in several("kinds", kinds)),
            names=tuple(several("names", names)),
            labels=labels or {},
            states=tuple(state_of(run_state(state, "states")) for state in several("states", states)),
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
            enabled=enabled,
            max_attempts=max_attempts,
            alerts=tuple(alerts),
        )
        request = CreateRuleRequest(rule=rule.to_proto())
        response = await self._connection.call(lambda lane: lane.evaluation.CreateRule, request)
        return Rule.from_proto(response.rule)

    async def get(self, rule_id: str) -> Rule:
        """Tell how a rule stands."""
        request = GetRuleRequest(rule_id=rule_id)
        response = await self._connection.call(lambda lane: lane.evaluation.GetRule, request)
        return Rule.from_proto(response.rule)

    async def list(self, *, page_size: int = 0) -> AsyncIterator[Rule]:
        """Give all rules, the newest first, page by page."""
        request = ListRulesRequest(page_size=page_size)
        while True:
            response = await self._connection.call(lambda lane: lane.evaluation.ListRules, request)
            for rule in response.rules:
                yield Rule.from_proto(rule)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def update(self, rule: Rule) -> Rule:
        """Change a rule: pass a changed copy of it. Samples that were drawn stay drawn.

        Raises RuleChanged if somebody else has changed it since it was read.

        Example:
            rule = await client.rules.create("quality")
            slow = rule.filter.model_copy(update={"min_duration": timedelta(seconds=30)})
            rule = await client.rules.update(rule.model_copy(update={"filter": slow}))
            assert rule.filter.min_duration == timedelta(seconds=30)
        """
        request = UpdateRuleRequest(rule=rule.to_proto())
        try:
            response = await self._connection.call(lambda lane: lane.evaluation.UpdateRule, request)
        except RuleChanged:
            # Perhaps by this very call, whose first answer was lost.
            found = await self.get(rule.id)
            if found.says_the_same_as(rule):
                return found
            raise
        return Rule.from_proto(response.rule)

    async def delete(self, rule_id: str) -> None:
        """Delete a rule and its samples. Its scores stay."""
        await self._connection.call(lambda lane: lane.evaluation.DeleteRule, DeleteRuleRequest(rule_id=rule_id))

    async def backfill(
        self,
        rule_id: str,
        *,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        again: Again | None = None,
    ) -> Rule:
        """Have a rule look at runs that it has not seen: from before its creation, and while it was not enabled.

        With `again`, runs are evaluated once more that the rule has scored: those whose last evaluation had "errors",
        those that have no score in the present "version" of an evaluator that the rule names, or "all". Earlier scores
        stay. Runs are drawn behind those that finish meanwhile; the rule's `backfill` tells how far it is. Raises
        BackfillUnderWay while it does so for other arguments.

        Example:
            await client.rules.create("quality")
            await client.rules.backfill("quality", created_after=datetime.now(UTC) - timedelta(days=30))
            await client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
            rule = await client.rules.get("quality")
            assert rule.backfill.done and rule.backfill.runs_drawn > 0
            rule = await client.rules.backfill("quality", again="errors")
            assert rule.backfill.again == "errors"
        """
        request = BackfillRuleRequest(
            rule_id=rule_id,
            created_after=timestamp("created_after", created_after),
            created_before=timestamp("created_before", created_before),
            mode=BACKFILL_MODE_UNSPECIFIED if again is None else choose("again", again, BACKFILL_MODES),
        )
        try:
            response = await self._connection.call(lambda lane: lane.evaluation.BackfillRule, request)
        except BackfillUnderWay:
            # Perhaps by this very call, whose first answer was lost.
            found = await self.get(rule_id)
            under_way = found.backfill
            asked = (created_after, created_before, again)
            if under_way and (under_way.created_after, under_way.created_before, under_way.again) == asked:
                return found
            raise
        return Rule.from_proto(response.rule)


def _seconds(name: str, value: float | None) -> timedelta | None:
    seconds = check_optional_seconds(name, value)
    return None if seconds is None else timedelta(seconds=seconds)
