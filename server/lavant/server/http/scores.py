"""The paths of scores and of the rules that they come from, and the calls that they stand for."""

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lavant.server.errors import LavantError
from lavant.server.http import score_queries
from lavant.server.http.answers import answer, caller
from lavant.server.streaming.calls import Caller
from lavant.v1 import evaluation_service_pb2, score_service_pb2
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_service_pb2 import ListEventsRequest, ListEventsResponse
from lavant.v1.rule_pb2 import Rule


class Scores(Protocol):
    """The calls to scores: see the contract."""

    async def list_scores(
        self, request: score_service_pb2.ListScoresRequest, call: Caller
    ) -> score_service_pb2.ListScoresResponse: ...

    async def query_scores(
        self, request: score_service_pb2.QueryScoresRequest, call: Caller
    ) -> score_service_pb2.QueryScoresResponse: ...

    async def compare_scores(
        self, request: score_service_pb2.CompareScoresRequest, call: Caller
    ) -> score_service_pb2.CompareScoresResponse: ...


class Rules(Protocol):
    """The calls to rules: see the contract."""

    async def get_rule(
        self, request: evaluation_service_pb2.GetRuleRequest, call: Caller
    ) -> evaluation_service_pb2.GetRuleResponse: ...

    async def list_rules(
        self, request: evaluation_service_pb2.ListRulesRequest, call: Caller
    ) -> evaluation_service_pb2.ListRulesResponse: ...


class Events(Protocol):
    """The call to events: see the contract."""

    async def list_events(self, request: ListEventsRequest, call: Caller) -> bytes: ...


class ScoresAPI:
    """Answers requests by the same calls that gRPC's are answered by."""

    def __init__(self, scores: Scores, rules: Rules, events: Events) -> None:
        self._scores = scores
        self._rules = rules
        self._events = events

    def routes(self) -> list[Route]:
        """The paths, each for GET and HEAD."""
        return [
            Route("/api/v1/scores", self.list_scores),
            Route("/api/v1/scores/summary", self.query_scores),
            Route("/api/v1/scores/comparison", self.compare_scores),
            Route("/api/v1/runs/{run_id}/scores", self.list_scores_of_run),
            Route("/api/v1/rules", self.list_rules),
            Route("/api/v1/rules/{rule_id}", self.get_rule),
            Route("/api/v1/alerts", self.list_alerts),
        ]

    async def list_scores(self, request: Request) -> Response:
        """Single scores, those of the latest runs first, a page at a time."""
        return answer(await self._scores.list_scores(score_queries.list_scores(request.query_params), caller()))

    async def list_scores_of_run(self, request: Request) -> Response:
        """The same of one run, which need not be there any more."""
        asked = score_queries.list_scores_of(request.query_params, request.path_params["run_id"])
        return answer(await self._scores.list_scores(asked, caller()))

    async def query_scores(self, request: Request) -> Response:
        """What scores add up to, by groups and over time."""
        return answer(await self._scores.query_scores(score_queries.query_scores(request.query_params), caller()))

    async def compare_scores(self, request: Request) -> Response:
        """Scores beside earlier ones, or beside those of another version."""
        return answer(await self._scores.compare_scores(score_queries.compare_scores(request.query_params), caller()))

    async def list_rules(self, request: Request) -> Response:
        """Rules, the newest first, a page at a time; without the addresses of webhooks."""
        page = await self._rules.list_rules(score_queries.list_rules(request.query_params), caller())
        for rule in page.rules:
            _hide_webhooks(rule)
        return answer(page)

    async def get_rule(self, request: Request) -> Response:
        """A rule as it stands, without the addresses of webhooks."""
        asked = evaluation_service_pb2.GetRuleRequest(rule_id=request.path_params["rule_id"])
        rule = (await self._rules.get_rule(asked, caller())).rule
        _hide_webhooks(rule)
        return answer(rule)

    async def list_alerts(self, request: Request) -> Response:
        """How alerts changed, the earliest first, a page at a time; before the first one there are none."""
        asked = score_queries.list_alerts(request.query_params)
        try:
            return answer(ListEventsResponse.FromString(await self._events.list_events(asked, caller())))
        except LavantError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise
            return answer(ListEventsResponse())


def _hide_webhooks(rule: Rule) -> None:
    """Leave out where alerts are posted to: such addresses are often secrets."""
    for alert in rule.alerts:
        alert.ClearField("webhook_url")
