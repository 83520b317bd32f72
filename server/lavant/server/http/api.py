"""The HTTP API: its paths, answered by the same services as gRPC's calls."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from lavant.contract.json_text import parts, to_json
from lavant.server.auth.principal import Scope
from lavant.server.errors import ServiceError, run_not_found
from lavant.server.http import evaluations, queries
from lavant.server.http.formats import FORMATS
from lavant.server.http.formats.frames import FormatFrames, Start
from lavant.server.http.formats.projection import Projection
from lavant.server.http.isolation import check_displacing
from lavant.server.http.openapi import Endpoint
from lavant.server.http.parameters import Query
from lavant.server.http.sse import (
    NO_HEADERS,
    RETRY_MS,
    EventStreamResponse,
    EventTexts,
    HTTPCaller,
    LastEventId,
    SSEFrames,
    attempt_now,
    end_event,
    end_of,
    event_of_run,
    new_session_id,
)
from lavant.server.model import RunKey, is_terminal
from lavant.server.scores.alerts.log import ALERTS_RUN
from lavant.server.slices import in_slices
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.frames import Encoder
from lavant.server.streaming.tokens import Position, ResumeTokens
from lavant.v1 import access_service_pb2, event_service_pb2, rule_service_pb2, run_service_pb2, score_service_pb2
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import (
    ListEventsRequest,
    ListEventsResponse,
    StopPosition,
    StreamEventsRequest,
)
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Run, RunKind

_Write = Callable[[bytes], Awaitable[None]]


class AccessCalls(Protocol):
    """The call of AccessService that HTTP answers with."""

    async def get_principal(
        self, request: access_service_pb2.GetPrincipalRequest, call: Caller
    ) -> access_service_pb2.GetPrincipalResponse: ...


class RunCalls(Protocol):
    """The calls of RunService that HTTP answers with."""

    async def get_run(self, request: run_service_pb2.GetRunRequest, call: Caller) -> run_service_pb2.GetRunResponse: ...

    async def list_runs(
        self, request: run_service_pb2.ListRunsRequest, call: Caller
    ) -> run_service_pb2.ListRunsResponse: ...


class WatchCalls(Protocol):
    """The call of RunService that watches runs."""

    async def watch_runs(self, request: run_service_pb2.WatchRunsRequest, call: Caller) -> None: ...


class EventCalls(Protocol):
    """The calls of EventService that HTTP answers with."""

    async def list_events(self, request: event_service_pb2.ListEventsRequest, call: Caller) -> bytes: ...

    async def stream_events(
        self, request: event_service_pb2.StreamEventsRequest, call: Caller, encoder: Encoder
    ) -> None: ...


class ScoreCalls(Protocol):
    """The calls of ScoreService that HTTP answers with."""

    async def list_scores(
        self, request: score_service_pb2.ListScoresRequest, call: Caller
    ) -> score_service_pb2.ListScoresResponse: ...

    async def query_scores(
        self, request: score_service_pb2.QueryScoresRequest, call: Caller
    ) -> score_service_pb2.QueryScoresResponse: ...

    async def compare_scores(
        self, request: score_service_pb2.CompareScoresRequest, call: Caller
    ) -> score_service_pb2.CompareScoresResponse: ...


class RuleCalls(Protocol):
    """The calls of RuleService that HTTP answers with."""

    async def get_rule(
        self, request: rule_service_pb2.GetRuleRequest, call: Caller
    ) -> rule_service_pb2.GetRuleResponse: ...

    async def list_rules(
        self, request: rule_service_pb2.ListRulesRequest, call: Caller
    ) -> rule_service_pb2.ListRulesResponse: ...


async def _write_nothing(_: bytes) -> None: ...


def _caller() -> HTTPCaller:
    """Return the caller of a call that answers with one message."""
    return HTTPCaller(_write_nothing)


class API:
    """Answers of all paths below /api/v1."""

    def __init__(
        self,
        *,
        access: AccessCalls,
        runs: RunCalls,
        watcher: WatchCalls,
        events: EventCalls,
        scores: ScoreCalls,
        rules: RuleCalls,
        tokens: ResumeTokens,
    ) -> None:
        self._access = access
        self._runs = runs
        self._watcher = watcher
        self._events = events
        self._scores = scores
        self._rules = rules
        self._tokens = tokens
        self._run_texts = EventTexts(event_of_run)
        self._evaluation_texts = EventTexts(evaluations.render)

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints."""
        runs, rules, scores = run_service_pb2, rule_service_pb2, score_service_pb2
        return [
            Endpoint("/api/v1/principal", self.get_principal, None, access_service_pb2.GetPrincipalResponse),
            Endpoint("/api/v1/runs", self.list_runs, Scope.RUNS_READ, runs.ListRunsResponse, queries.RunsQuery),
            Endpoint("/api/v1/runs/{run_id}", self.get_run, Scope.RUNS_READ, Run),
            Endpoint(
                "/api/v1/runs/{run_id}/events",
                self.list_events,
                Scope.RUNS_READ,
                ListEventsResponse,
                queries.EventsQuery,
            ),
            Endpoint("/api/v1/runs/{run_id}/stream", self.stream_run, Scope.RUNS_READ, None, queries.RunStreamQuery),
            Endpoint(
                "/api/v1/runs/{run_id}/scores",
                self.list_run_scores,
                Scope.SCORES_READ,
                scores.ListScoresResponse,
                queries.RunScoresQuery,
            ),
            Endpoint("/api/v1/watch", self.watch_runs, Scope.RUNS_READ, None, queries.WatchQuery),
            Endpoint(
                "/api/v1/evaluations",
                self.list_evaluations,
                Scope.RUNS_READ,
                runs.ListRunsResponse,
                queries.EvaluationsQuery,
            ),
            Endpoint("/api/v1/evaluations/{run_id}", self.get_evaluation, Scope.RUNS_READ, Run),
            Endpoint(
                "/api/v1/evaluations/{run_id}/stream",
                self.stream_evaluation,
                Scope.RUNS_READ,
                None,
                queries.StreamQuery,
            ),
            Endpoint(
                "/api/v1/scores", self.list_scores, Scope.SCORES_READ, scores.ListScoresResponse, queries.ScoresQuery
            ),
            Endpoint(
                "/api/v1/scores/summary",
                self.query_scores,
                Scope.SCORES_READ,
                scores.QueryScoresResponse,
                queries.ScoreTotalsQuery,
            ),
            Endpoint(
                "/api/v1/scores/comparison",
                self.compare_scores,
                Scope.SCORES_READ,
                scores.CompareScoresResponse,
                queries.ScoreComparisonQuery,
            ),
            Endpoint("/api/v1/rules", self.list_rules, Scope.RULES_READ, rules.ListRulesResponse, queries.PageQuery),
            Endpoint("/api/v1/rules/{rule_id}", self.get_rule, Scope.RULES_READ, Rule),
            Endpoint("/api/v1/alerts", self.list_alerts, Scope.RULES_READ, ListEventsResponse, queries.PageQuery),
        ]

    async def get_principal(self, _: Request) -> Response:
        """Return the principal of the request: who calls, for which tenant, and what the credential allows."""
        return _json(await self._access.get_principal(access_service_pb2.GetPrincipalRequest(), _caller()))

    async def list_runs(self, _: Request, query: queries.RunsQuery) -> Response:
        """List runs, the newest first."""
        request = query.message(run_service_pb2.ListRunsRequest, filter=query.message(run_service_pb2.RunFilter))
        return await _json_page(await self._runs.list_runs(request, _caller()))

    async def list_evaluations(self, _: Request, query: queries.EvaluationsQuery) -> Response:
        """List evaluations, the newest first, with those of rules."""
        evaluations_only = {"kinds": [RunKind.RUN_KIND_EVALUATION], "include_system_runs": True}
        selected = query.message(run_service_pb2.RunFilter, **evaluations_only)
        request = query.message(run_service_pb2.ListRunsRequest, filter=selected)
        return await _json_page(await self._runs.list_runs(request, _caller()))

    async def get_run(self, request: Request) -> Response:
        """Return the current state of a run."""
        return _json(await self._run(request.path_params["run_id"]))

    async def get_evaluation(self, request: Request) -> Response:
        """Return the current state of an evaluation."""
        return _json(_of_kind(await self._run(request.path_params["run_id"]), RunKind.RUN_KIND_EVALUATION))

    async def list_events(self, request: Request, query: queries.EventsQuery) -> Response:
        """List the events of a run, in order."""
        return await self._list_events(query.message(ListEventsRequest, run_id=request.path_params["run_id"]))

    async def stream_run(self, request: Request, query: queries.RunStreamQuery) -> ASGIApp:
        """Stream the events of a run.

        First `opened` with the run, then each event named by its type, `caught_up` once when the recorded ones were
        sent, and finally `end` with the reason. In another `format`, its events only. The ID of each event is a resume
        token. 204: there is nothing left.
        """
        kind = FORMATS.get(query.format)
        if kind is None:
            return await self._stream(request, query, lambda session_id, _: SSEFrames(self._run_texts, session_id))
        return await self._stream(
            request, query, lambda session_id, start: self._in_format(kind, session_id, start), headers=kind.headers
        )

    async def stream_evaluation(self, request: Request, query: queries.StreamQuery) -> ASGIApp:
        """Stream the progress of an evaluation.

        Events `status`, `progress`, `row_complete`, `final` and `error` between `opened` and `end`. The ID of each
        event is a resume token. 204: there is nothing left.
        """
        texts, state = self._evaluation_texts, evaluations.state
        return await self._stream(
            request, query, lambda session_id, _: SSEFrames(texts, session_id, state), RunKind.RUN_KIND_EVALUATION
        )

    async def watch_runs(self, request: Request, query: queries.WatchQuery) -> ASGIApp:
        """Stream the current state of runs, then each change to them.

        Events: `run` with a run, `left` and `deleted` with a run_id, `caught_up` once after the current state, `end`.
        """
        asked = query.message(
            run_service_pb2.WatchRunsRequest,
            filter=query.message(run_service_pb2.RunFilter),
            resume_token=LastEventId.of(request, query.last_event_id).token,
        )

        async def deliver(write: _Write) -> None:
            async def write_runs(data: bytes) -> None:
                frame = run_service_pb2.WatchRunsResponse.FromString(data)
                texts = [_change("deleted", run_id) for run_id in frame.deleted_run_ids]
                texts += [_change("left", run_id) for run_id in frame.left_run_ids]
                texts += await in_slices(f"event: run\ndata: {to_json(run)}\n\n" for run in frame.runs)
                texts += ["event: caught_up\ndata: {}\n\n"] if frame.caught_up else []
                if frame.HasField("end"):
                    texts.append(f"{end_of(frame.end.reason, reconnect=frame.end.reconnect).decode()}\n")
                await write(f"{''.join(texts)}: heartbeat\nretry: {RETRY_MS}\nid: {frame.resume_token}\n\n".encode())

            await self._watcher.watch_runs(asked, HTTPCaller(write_runs))

        return _stream_or_head(request, deliver)

    async def list_scores(self, _: Request, query: queries.ScoresQuery) -> Response:
        """List single scores, those of the latest runs first."""
        return await self._list_scores(query, query.score_filter())

    async def list_run_scores(self, request: Request, query: queries.RunScoresQuery) -> Response:
        """List the scores of a run, which may be deleted."""
        return await self._list_scores(query, query.score_filter(subject_run_id=request.path_params["run_id"]))

    async def query_scores(self, _: Request, query: queries.ScoreTotalsQuery) -> Response:
        """Aggregate scores by groups and over time."""
        request = query.message(score_service_pb2.QueryScoresRequest, filter=query.score_filter())
        return await _json_page(await self._scores.query_scores(request, _caller()))

    async def compare_scores(self, _: Request, query: queries.ScoreComparisonQuery) -> Response:
        """Compare scores with earlier ones, or with those of another version."""
        return await _json_page(await self._scores.compare_scores(query.request(), _caller()))

    async def list_rules(self, _: Request, query: queries.PageQuery) -> Response:
        """List rules, the newest first, without the addresses of webhooks."""
        page = await self._rules.list_rules(query.message(rule_service_pb2.ListRulesRequest), _caller())
        for rule in page.rules:
            _hide_webhooks(rule)
        return await _json_page(page)

    async def get_rule(self, request: Request) -> Response:
        """Return a rule, without the addresses of webhooks."""
        asked = rule_service_pb2.GetRuleRequest(rule_id=request.path_params["rule_id"])
        rule = (await self._rules.get_rule(asked, _caller())).rule
        _hide_webhooks(rule)
        return _json(rule)

    async def list_alerts(self, _: Request, query: queries.PageQuery) -> Response:
        """List the changes of alerts, the earliest first."""
        asked = query.message(ListEventsRequest, run_id=ALERTS_RUN, types=[EventType.EVENT_TYPE_ALERT_CHANGED])
        try:
            return await self._list_events(asked)
        except ServiceError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise
            return _json(ListEventsResponse())  # the run of alerts begins with the first one

    async def _list_events(self, request: ListEventsRequest) -> Response:
        return await _json_page(ListEventsResponse.FromString(await self._events.list_events(request, _caller())))

    async def _list_scores(self, query: Query, selected: score_service_pb2.ScoreFilter) -> Response:
        request = query.message(score_service_pb2.ListScoresRequest, filter=selected)
        return await _json_page(await self._scores.list_scores(request, _caller()))

    async def _run(self, run_id: str) -> Run:
        return (await self._runs.get_run(run_service_pb2.GetRunRequest(run_id=run_id), _caller())).run

    async def _stream(
        self,
        request: Request,
        query: queries.StreamQuery,
        encode: Callable[[str, Start], SSEFrames | FormatFrames],
        kind: "RunKind.ValueType | None" = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> ASGIApp:
        asked = query.message(StreamEventsRequest, run_id=request.path_params["run_id"])
        if asked.consumer_id:
            check_displacing(request.headers, request.query_params)
        run = await self._run_to_stream(asked, kind)
        last = LastEventId.of(request, query.last_event_id)
        position = None
        if last.token:
            position = self._tokens.read(last.token, RunKey(_caller().tenant, asked.run_id))
            if last.is_over or (run is not None and _has_read_all(run, position, asked)):
                return Response(status_code=204)  # an EventSource stops for good only on this status
            asked.resume_token = last.token
            asked.take_over = False
        session_id = last.session_id or asked.session_id or new_session_id()
        # Without a consumer the stream has no rival, so its IDs need no session.
        frames = encode(session_id if asked.consumer_id else "", Start(asked, run, position))
        asked.session_id = session_id
        asked.consumer_id = asked.consumer_id or f"http-{new_session_id()}"
        asked.attempt = attempt_now()
        return _stream_or_head(
            request,
            lambda write: self._events.stream_events(asked, HTTPCaller(write), frames),
            encode_end=frames.end_event,
            headers=headers,
        )

    def _in_format(self, kind: type[Projection], session_id: str, start: Start) -> FormatFrames:
        run_id, call = start.asked.run_id, _caller()

        async def get_run() -> Run:
            return (await self._runs.get_run(run_service_pb2.GetRunRequest(run_id=run_id), call)).run

        async def list_events(page_token: str) -> bytes:
            page = ListEventsRequest(run_id=run_id, page_size=1_000, page_token=page_token)
            return await self._events.list_events(page, call)

        return start.frames(kind, session_id, get_run, list_events)

    async def _run_to_stream(self, asked: StreamEventsRequest, kind: "RunKind.ValueType | None") -> Run | None:
        """Return the run; None if it does not exist yet and the stream may wait for it."""
        try:
            run = await self._run(asked.run_id)
        except ServiceError as error:
            if asked.wait_for_run and error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return None
            raise
        return _of_kind(run, kind)


def _json(message: Message) -> Response:
    return Response(to_json(message), media_type="application/json")


async def _json_page(page: Message) -> Response:
    """Return a message with many others as JSON, which is written in slices."""
    return Response("".join(await in_slices(parts(page))), media_type="application/json")


def _of_kind(run: Run, kind: "RunKind.ValueType | None") -> Run:
    if kind not in (None, run.kind):
        raise run_not_found(run.run_id)
    return run


def _has_read_all(run: Run, position: Position, asked: StreamEventsRequest) -> bool:
    """Return whether nothing follows a position. Raises RESUME_TOKEN_INVALID if it is not one of this run."""
    position.check(run.create_time.ToNanoseconds(), run.last_sequence)
    ends_here = is_terminal(run.state) or asked.stop == StopPosition.STOP_POSITION_HEAD
    return ends_here and position.sequence >= run.last_sequence


def _change(name: str, run_id: str) -> str:
    """Format an event that only names a run; its ID has no characters that JSON escapes."""
    return f'event: {name}\ndata: {{"run_id": "{run_id}"}}\n\n'


def _stream_or_head(
    request: Request,
    deliver: Callable[[_Write], Awaitable[None]],
    *,
    encode_end: Callable[..., bytes] = end_event,
    headers: Mapping[str, str] = NO_HEADERS,
) -> ASGIApp:
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers=headers)
    return EventStreamResponse(deliver, encode_end=encode_end, headers=headers)


def _hide_webhooks(rule: Rule) -> None:
    """Clear the addresses that alerts are posted to: they often hold secrets."""
    for alert in rule.alerts:
        alert.ClearField("webhook_url")
