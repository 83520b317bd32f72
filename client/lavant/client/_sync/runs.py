# Made from _async/runs.py by client/unasync.py: change that one.
"""Runs: creating, finding, waiting for, reading, publishing."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from lavant.client import _payloads, _scope
from lavant.client._arguments import check_optional_seconds, check_seconds, event_types
from lavant.client._events import Event, wrap
from lavant.client._filter import run_filter
from lavant.client._ids import new_id
from lavant.client._models import Run
from lavant.client._options import OnError, ProducerOptions, check_on_error, check_options
from lavant.client._plan import Deltas, Handler, Start, Stop, StreamPlan
from lavant.client._requests import create_request, fitting_request
from lavant.client._scores import RecordedScore, feedback, score_filter
from lavant.client._sync.connection import Connection
from lavant.client._sync.limits import Limits
from lavant.client._sync.producer import RunProducer
from lavant.client._sync.score_pages import list_scores
from lavant.client._sync.stream import RunStream
from lavant.client._sync.streams import Streams
from lavant.client._sync.wait import wait_for_end
from lavant.client._sync.watch import watch_runs
from lavant.v1.event_service_pb2 import ListEventsRequest
from lavant.v1.run_service_pb2 import (
    CancelRunRequest,
    DeleteRunRequest,
    GetRunRequest,
    ListRunsRequest,
)
from lavant.v1.score_service_pb2 import RecordScoreRequest


class Runs:
    """What can be done with runs; found at `client.runs`.

    Calls are made again while the server is out of reach, within the client's timeout: each may be
    made twice without harm. Raises RunNotFound for a run that does not exist or is not yours.

    Example:
        run = client.runs.create("nightly", labels={"team": "weather"})
        client.runs.cancel(run.id, "no longer needed")
        assert [run.name for run in client.runs.list(labels={"team": "weather"})] == ["nightly"]
        done = client.runs.wait(run_id, timeout=300)
        assert done.state == "succeeded"
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._streams = Streams(connection)

    def create(
        self,
        name: str,
        *,
        run_id: str | None = None,
        kind: str = "agent",
        labels: Mapping[str, str] | None = None,
        parent_run_id: str = "",
        conversation_id: str = "",
        producer_timeout: float | None = None,
    ) -> Run:
        """Create a run, or find the one that was created in the same way. Raises RunExists if they differ."""
        request = create_request(name, run_id, kind, labels, parent_run_id, conversation_id, producer_timeout)
        response = self._connection.call(lambda lane: lane.runs.CreateRun, request)
        return Run.from_proto(response.run)

    def get(self, run_id: str) -> Run:
        """Tell where a run stands."""
        response = self._connection.call(lambda lane: lane.runs.GetRun, GetRunRequest(run_id=run_id))
        return Run.from_proto(response.run)

    def list(
        self,
        *,
        kinds: Iterable[str] = (),
        states: Iterable[str] = (),
        names: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        conversation_id: str = "",
        parent_run_id: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 0,
    ) -> Iterator[Run]:
        """Give the runs that match, the newest first, page by page.

        That is one of the `kinds`, `states` and `names`, where any are given, and all of the `labels`. A name may
        end in `*`. `page_size` is how many runs one call asks for: at most 1,000, and 100 where it is 0.

        Example:
            assert [run.id for run in client.runs.list(states=["failed"])] == [failed_id]
        """
        matching = run_filter(
            kinds=kinds,
            states=states,
            names=names,
            labels=labels,
            conversation_id=conversation_id,
            parent_run_id=parent_run_id,
            created_after=created_after,
            created_before=created_before,
        )
        request = ListRunsRequest(filter=matching, page_size=page_size)
        while True:
            response = self._connection.call(lambda lane: lane.runs.ListRuns, request)
            for run in response.runs:
                yield Run.from_proto(run)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def wait(self, run_id: str, timeout: float | None = None) -> Run:
        """Wait until a run has ended, well or not: look at its state. Raises WaitTimeout after `timeout` seconds.

        Raises Unavailable where the server was out of reach for as long as the client's own timeout.

        Example:
            run = client.runs.wait(run_id, timeout=300)
            assert (run.state, run.result.output) == ("succeeded", {"answer": "cold"})
        """
        return wait_for_end(self._connection, run_id, None if timeout is None else check_seconds("timeout", timeout))

    def watch(
        self,
        *,
        kinds: Iterable[str] = (),
        states: Iterable[str] = (),
        names: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        conversation_id: str = "",
        parent_run_id: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        resume_token: str = "",
    ) -> Iterator[Run]:
        """Give the runs that match as they stand, then each as it is created or changes state; never ends.

        Reconnects by itself. A run may be given twice in the same state.

        Example:
            for run in client.runs.watch(kinds=["agent"]):
                print(run.name, run.state)
                break
        """
        matching = run_filter(
            kinds=kinds,
            states=states,
            names=names,
            labels=labels,
            conversation_id=conversation_id,
            parent_run_id=parent_run_id,
            created_after=created_after,
            created_before=created_before,
        )
        return watch_runs(self._connection, matching, resume_token)

    def cancel(self, run_id: str, reason: str = "") -> Run:
        """Ask a run's producer to stop; it may take its time. An ended run stays as it is.

        Example:
            with client.runs.start("agent") as run:
                client.runs.cancel(run.id, "too slow")
                run.wait_cancelled()
                assert run.cancel_reason == "too slow"
        """
        request = CancelRunRequest(run_id=run_id, reason=reason)
        response = self._connection.call(lambda lane: lane.runs.CancelRun, request)
        return Run.from_proto(response.run)

    def delete(self, run_id: str) -> None:
        """Delete an ended run and its log. Raises RunNotEnded for one that has not."""
        self._connection.call(lambda lane: lane.runs.DeleteRun, DeleteRunRequest(run_id=run_id))

    def events(self, run_id: str, *, types: Iterable[str] = (), page_size: int = 0) -> Iterator[Event]:
        """Give the events recorded so far, in order, page by page; also those that come while it does.

        Example:
            [event] = [event for event in client.runs.events(run_id, types=["tool_call_finished"])]
            assert event.data.tool_name == "search_web"
        """
        request = ListEventsRequest(run_id=run_id, page_size=page_size, types=event_types(types))
        while True:
            response = self._connection.call(lambda lane: lane.events.ListEvents, request)
            for event in response.events:
                yield wrap(event)
            # A page may be empty in the middle of a log, where none of many events match: then its token has moved.
            if response.next_page_token in ("", request.page_token):
                return
            request.page_token = response.next_page_token

    def score(
        self,
        run_id: str,
        *,
        name: str,
        value: float | bool | str,
        explanation: str = "",
        evaluator: str = "",
        labels: Mapping[str, str] | None = None,
        score_id: str | None = None,
    ) -> str:
        """Record a score on a run afterwards: what a person says of it, or what turned out to be true.

        The `value` is a number, a verdict, or a class; `evaluator` tells who says so. Returns the score's id, made up
        here unless one is given: the same one is recorded once. The run need not have ended.

        Example:
            client.runs.score(run_id, name="helpful", value=False, explanation="It was warm.", evaluator="ada")
            assert [score.explanation for score in client.runs.scores(run_id)] == ["It was warm."]
        """
        chosen = score_id or new_id()
        request = RecordScoreRequest(
            score_id=chosen, run_id=run_id, score=feedback(name, value, explanation, evaluator), labels=labels
        )
        self._connection.call(lambda lane: lane.scores.RecordScore, request)
        return chosen

    def scores(self, run_id: str, *, page_size: int = 0) -> Iterator[RecordedScore]:
        """Give the scores that were recorded on a run, by rules and by people, page by page."""
        return list_scores(self._connection, score_filter(run_id=run_id), page_size)

    def start(
        self,
        name: str,
        *,
        input: object = None,  # noqa: A002
        run_id: str | None = None,
        kind: str = "agent",
        labels: Mapping[str, str] | None = None,
        parent_run_id: str = "",
        conversation_id: str = "",
        producer_timeout: float | None = None,
        model: str = "",
        version: str = "",
        on_error: OnError = "log",
        options: ProducerOptions | None = None,
    ) -> RunProducer:
        """Execute a run in this process, for the length of an `with` block.

        With `producer_timeout`, the server ends the run as ABANDONED once this process has been silent
        for so many seconds; signs of life are sent by themselves. `on_error` says what becomes of events
        that cannot be published: "log" warns once and drops all that follow, so that the agent works on and
        the log has no hole; "raise" raises from the method that publishes, and at the block's end.

        Example:
            with client.runs.start("weather-agent", input={"city": "Oslo"}, producer_timeout=60) as run:
                with run.step("plan"):
                    run.text("I look outside.")
                run.output = {"answer": "cold"}
        """
        check_on_error(on_error)
        if parent_run_id is None or (isinstance(parent_run_id, str) and not parent_run_id):
            parent_run_id = _scope.parent_of_new_run()
        asked = (name, run_id, kind, labels, parent_run_id, conversation_id, producer_timeout)
        request = create_request(*asked) if on_error == "raise" else fitting_request(*asked)
        started = _payloads.run_started(input, version, model)
        return RunProducer(self._connection, request, started, check_options(options, on_error), on_error)

    def stream(
        self,
        run_id: str,
        *,
        consumer: str | None = None,
        resume_token: str | None = None,
        start: Start = "beginning",
        stop: Stop = "run_finished",
        types: Iterable[str] = (),
        deltas: Deltas = "all",
        timeout: float | None = None,
        idle_timeout: float | None = None,
        reconnect_timeout: float | None = 60.0,
        heartbeat_interval: float = 15.0,
        take_over: bool = False,
        wait_for_run: bool = False,
        on_event: Handler | Iterable[Handler] = (),
        handler_timeout: float = 30.0,
    ) -> RunStream:
        """Read a run's events, the recorded ones first; no call is made before the first event is asked for.

        `consumer` names the reader: at most one stream per run and name; None makes one up. `timeout` and
        `idle_timeout` raise StreamTimeout and IdleTimeout; `reconnect_timeout` is how long a cut stream
        tries to resume before StreamCut. `heartbeat_interval` is 1 to 60. All are in seconds.

        `on_event` handlers are called with every event before it is given out, one after the other: the next
        event is read when they are done. An asynchronous one that takes longer than `handler_timeout`
        raises TimeoutError; what a handler raises goes to the reader.

        Once a stream was closed, the next one of this client for the same run and consumer gets its
        place at once; while it is open, that one is refused like any other, with ConsumerBusy.
        Raises ValueError or TypeError for arguments that make no sense.

        Example:
            with client.runs.stream(run_id, consumer="ui", idle_timeout=3600) as stream:
                for event in stream:
                    if event.type == "text_delta":
                        print(event.data.text, end="")
        """
        check_seconds("handler_timeout", handler_timeout)
        reconnect_timeout = check_optional_seconds("reconnect_timeout", reconnect_timeout)
        plan = StreamPlan(
            run_id=run_id,
            consumer_id=consumer or "",
            start=start,
            stop=stop,
            types=event_types(types),
            deltas=deltas,
            heartbeat_interval=heartbeat_interval,
            take_over=take_over,
            wait_for_run=wait_for_run,
        )
        return self._streams.open(
            plan,
            resume_token or "",
            limits=Limits(
                check_optional_seconds("timeout", timeout),
                check_optional_seconds("idle_timeout", idle_timeout),
                self._connection.clock,
            ),
            reconnect_timeout=reconnect_timeout,
            handlers=[on_event] if callable(on_event) else list(on_event),
            handler_timeout=handler_timeout,
        )
