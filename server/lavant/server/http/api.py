"""The paths of the API, and the calls that they stand for."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lavant.contract.json_text import to_json
from lavant.server.errors import LavantError, invalid_field, run_not_found
from lavant.server.http import evaluations, queries
from lavant.server.http.answers import TENANT, answer, caller
from lavant.server.http.sse import RETRY_MS, EventTexts, Named, SSEFrames, event_of_run
from lavant.server.http.streams import EventStreamResponse, HTTPCaller, LastEventId, attempt_now, new_session_id
from lavant.server.model import RunKey, is_terminal
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.frames import Frames
from lavant.server.streaming.tokens import Position, ResumeTokens
from lavant.v1 import event_service_pb2, run_service_pb2
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_service_pb2 import StopPosition, StreamEventsRequest
from lavant.v1.run_pb2 import Run, RunKind

_Write = Callable[[bytes], Awaitable[None]]


class Runs(Protocol):
    """The calls to runs: see the contract."""

    async def get_run(self, request: run_service_pb2.GetRunRequest, call: Caller) -> run_service_pb2.GetRunResponse: ...

    async def list_runs(
        self, request: run_service_pb2.ListRunsRequest, call: Caller
    ) -> run_service_pb2.ListRunsResponse: ...


class Watcher(Protocol):
    """The call that watches runs: see the contract."""

    async def watch_runs(self, request: run_service_pb2.WatchRunsRequest, call: Caller) -> None: ...


class Events(Protocol):
    """The calls to events: see the contract."""

    async def list_events(self, request: event_service_pb2.ListEventsRequest, call: Caller) -> bytes: ...

    async def stream_events(
        self, request: event_service_pb2.StreamEventsRequest, call: Caller, faced: Frames
    ) -> None: ...


class API:
    """Answers requests by the same calls that gRPC's are answered by."""

    def __init__(self, runs: Runs, watcher: Watcher, events: Events, tokens: ResumeTokens) -> None:
        self._runs = runs
        self._watcher = watcher
        self._events = events
        self._tokens = tokens
        self._run_texts = EventTexts(event_of_run)
        self._evaluation_texts = EventTexts(evaluations.render)

    def routes(self) -> list[Route]:
        """The paths, each for GET and HEAD."""
        return [
            Route("/api/v1/runs", self.list_runs),
            Route("/api/v1/runs/{run_id}", self.get_run),
            Route("/api/v1/runs/{run_id}/events", self.list_events),
            Route("/api/v1/runs/{run_id}/stream", _endpoint(self.stream_run)),
            Route("/api/v1/watch", _endpoint(self.watch)),
            Route("/api/v1/evaluations", self.list_evaluations),
            Route("/api/v1/evaluations/{run_id}", self.get_evaluation),
            Route("/api/v1/evaluations/{run_id}/stream", _endpoint(self.stream_evaluation)),
        ]

    async def list_runs(self, request: Request) -> Response:
        """Runs, the newest first, a page at a time."""
        return answer(await self._runs.list_runs(queries.list_runs(request.query_params), caller()))

    async def list_evaluations(self, request: Request) -> Response:
        """The same of evaluations."""
        asked = queries.list_runs(request.query_params)
        if asked.filter.kinds:
            raise invalid_field("kind", "is evaluation here; leave it out")
        asked.filter.kinds.append(RunKind.RUN_KIND_EVALUATION)
        return answer(await self._runs.list_runs(asked, caller()))

    async def get_run(self, request: Request) -> Response:
        """A run as it stands."""
        return answer(await self._run(request.path_params["run_id"]))

    async def get_evaluation(self, request: Request) -> Response:
        """An evaluation as it stands."""
        return answer(await self._evaluation(request.path_params["run_id"]))

    async def list_events(self, request: Request) -> Response:
        """A run's events, a page at a time."""
        asked = queries.list_events(request.query_params, request.path_params["run_id"])
        page = event_service_pb2.ListEventsResponse.FromString(await self._events.list_events(asked, caller()))
        return answer(page)

    async def stream_run(self, request: Request) -> ASGIApp:
        """A run's events as they come."""
        return await self._stream(request, self._run_texts)

    async def stream_evaluation(self, request: Request) -> ASGIApp:
        """An evaluation's status, progress, rows and end as they come."""
        return await self._stream(request, self._evaluation_texts, RunKind.RUN_KIND_EVALUATION, evaluations.state)

    async def watch(self, request: Request) -> ASGIApp:
        """Runs as they stand, then each as it changes state."""
        asked = queries.watch_runs(request.query_params, LastEventId.of(request).token)

        async def deliver(write: _Write) -> None:
            async def write_runs(data: bytes) -> None:
                page = run_service_pb2.WatchRunsResponse.FromString(data)
                texts = [f"event: run\ndata: {to_json(run)}\n\n" for run in page.runs]
                await write(f"{''.join(texts)}: heartbeat\nretry: {RETRY_MS}\nid: {page.resume_token}\n\n".encode())

            await self._watcher.watch_runs(asked, HTTPCaller(TENANT, write_runs))

        return _stream_or_head(request, deliver)

    async def _stream(
        self,
        request: Request,
        texts: EventTexts,
        kind: "RunKind.ValueType | None" = None,
        state: Callable[[Run], Named] = lambda _: (),
    ) -> ASGIApp:
        asked = queries.stream_events(request.query_params, request.path_params["run_id"])
        run = await self._awaited(asked, kind)
        last = LastEventId.of(request)
        if last.token:
            position = self._tokens.read(last.token, RunKey(TENANT, asked.run_id))
            if last.is_over or (run is not None and _has_read_all(run, position, asked)):
                return Response(status_code=204)
            asked.resume_token = last.token
            asked.take_over = False
        session_id = last.session_id or asked.session_id or new_session_id()
        # Without a name, nobody is its rival.
        frames = SSEFrames(texts, session_id if asked.consumer_id else "", state)
        asked.session_id = session_id
        asked.consumer_id = asked.consumer_id or f"http-{new_session_id()}"
        asked.attempt = attempt_now()
        return _stream_or_head(
            request, lambda write: self._events.stream_events(asked, HTTPCaller(TENANT, write), frames)
        )

    async def _awaited(self, asked: StreamEventsRequest, kind: "RunKind.ValueType | None") -> Run | None:
        """The run that is to be streamed; None: there is none yet, and it may be waited for."""
        try:
            run = await self._run(asked.run_id)
        except LavantError as error:
            if asked.wait_for_run and error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return None
            raise
        if kind not in (None, run.kind):
            raise run_not_found(asked.run_id)
        return run

    async def _run(self, run_id: str) -> Run:
        response = await self._runs.get_run(run_service_pb2.GetRunRequest(run_id=run_id), caller())
        return response.run

    async def _evaluation(self, run_id: str) -> Run:
        run = await self._run(run_id)
        if run.kind != RunKind.RUN_KIND_EVALUATION:
            raise run_not_found(run_id)
        return run


def _has_read_all(run: Run, position: Position, asked: StreamEventsRequest) -> bool:
    """Return whether nothing follows on a position, or raise RESUME_TOKEN_INVALID if it is not one of this run."""
    position.check(run.create_time.ToNanoseconds(), run.last_sequence)
    ends_here = is_terminal(run.state) or asked.stop == StopPosition.STOP_POSITION_HEAD
    return ends_here and position.sequence >= run.last_sequence


def _endpoint(respond: Callable[[Request], Awaitable[ASGIApp]]) -> Any:
    """Make an endpoint of what answers with a stream."""

    async def endpoint(request: Request) -> Any:
        return await respond(request)

    return endpoint


def _stream_or_head(request: Request, deliver: Callable[[_Write], Awaitable[None]]) -> ASGIApp:
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    return EventStreamResponse(deliver)
