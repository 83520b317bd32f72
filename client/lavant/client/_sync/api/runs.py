# Generated from _async/api/runs.py by client/unasync.py: change that file instead.
"""Calls about runs: create, find, wait for, publish and read them."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.requests import create_request, fitting_request
from lavant.client._reading.plan import Deltas, Handler, Start, Stop, StreamPlan
from lavant.client._sync.api.scores import list_scores
from lavant.client._sync.calls import CallEnded
from lavant.client._sync.producer import RunProducer
from lavant.client._sync.reconnect import STEADY, Reconnect
from lavant.client._sync.run_stream import RunStream
from lavant.client._sync.subscription import Limits, Streams
from lavant.client._sync.transport import UNANSWERED, Connection
from lavant.client._wire.arguments import check_optional_seconds, check_seconds, event_types, run_filter
from lavant.client._wire.ids import new_id
from lavant.client.errors import LavantError, StreamCut, Unavailable, WaitTimeout
from lavant.client.events import Event, wrap
from lavant.client.models import Run, RunChange, run_changes
from lavant.client.options import OnError, ProducerOptions, check_on_error, check_options
from lavant.client.scores import RecordedScore, feedback, score_filter
from lavant.v1.event_service_pb2 import ListEventsRequest
from lavant.v1.run_service_pb2 import (
    CancelRunRequest,
    DeleteRunRequest,
    GetRunRequest,
    ListRunsRequest,
    RunFilter,
    WatchRunsRequest,
)
from lavant.v1.score_service_pb2 import RecordScoreRequest

RECONNECT_TIMEOUT = 60.0
SILENCE = 45.0  # seconds: three heartbeats of the server


def watch_runs(connection: Connection, matching: RunFilter, resume_token: str) -> Iterator[RunChange]:
    """Yield the runs that match a filter, then each change to them. Reconnects; never ends."""
    reconnect = Reconnect(connection.new_backoff(), connection.clock, patience=RECONNECT_TIMEOUT)
    caught_up = False
    while True:
        error: LavantError = Unavailable("the watch ended")
        try:
            connection.open_runs.wait_created()
            reconnect.begin_call()
            call = connection.open(
                lambda stubs: stubs.runs.WatchRuns, WatchRunsRequest(filter=matching, resume_token=resume_token)
            )
            try:
                while (frame := connection.read(call, SILENCE, reconnect.left())) is not None:
                    reconnect.connected()
                    for change in run_changes(frame, resume_token):
                        if change.type != "caught_up" or not caught_up:  # each call catches up
                            if frame.resume_token != resume_token:
                                reconnect.progress()
                            yield change
                    caught_up = caught_up or frame.caught_up
                    resume_token = frame.resume_token
                    if frame.HasField("end"):
                        error = Unavailable(
                            "the watch ended", retry_after=frame.end.retry_delay.ToMilliseconds() / 1000
                        )
            finally:
                call.cancel()
        except CallEnded:
            raise StreamCut("the client is closed") from None
        except TimeoutError:
            error = Unavailable("the server did not answer")
        except LavantError as failure:
            error = failure
        reconnect.pause(error)


LONGEST_WAIT = 50.0
ANSWER_MARGIN = 0.25  # seconds that the last answer may take to come


def wait_for_end(connection: Connection, run_id: str, timeout: float | None) -> Run:
    """Wait until a run has ended.

    Raises WaitTimeout after `timeout` seconds, and Unavailable if the server cannot be reached for the client's own
    timeout.
    """
    clock = connection.clock
    deadline = float("inf") if timeout is None else clock.monotonic() + timeout
    reconnect = _new_reconnect(connection)
    early = connection.new_backoff()
    known = "has not ended"
    while True:
        began = clock.monotonic()
        left = max(0.0, deadline - began)
        asked = min(LONGEST_WAIT, left)
        error: LavantError | None = None
        try:
            response = connection.wait_run(run_id, asked, min(UNANSWERED, left - asked + ANSWER_MARGIN))
        except LavantError as failure:
            error = failure
        else:
            run = Run.from_proto(response.run)
            if run.has_ended:
                return run
            known = f"is {run.state.value}"
            reconnect = _new_reconnect(connection)
            took = clock.monotonic() - began
            if took >= STEADY:
                early.reset()
            elif took < asked:  # as of a server that drains, which answers at once
                clock.sleep(min(early.next(), asked - took))
        left = deadline - clock.monotonic()
        if error is not None:
            reconnect.pause(error, max(0.0, left))
            known = f"may have ended: the server is out of reach ({error.message}),"
        if left <= 0:
            raise WaitTimeout(f"run {run_id} {known} after {timeout:g} s") from error


def _new_reconnect(connection: Connection) -> Reconnect:
    return Reconnect(connection.new_backoff(), connection.clock, patience=connection.timeout)


class Runs:
    """Calls about runs, at `client.runs`.

    While the server cannot be reached, calls are repeated within the client's timeout: repeating them has no second
    effect. Calls with a `run_id` raise RunNotFound if the run does not exist or belongs to another tenant.

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
        """Create a run without starting it, or return the run that has this `run_id` and the same settings.

        The id is generated unless `run_id` is given. With `producer_timeout` in seconds, the server ends the run as
        ABANDONED once no producer has sent anything for that long. Raises RunExists if a run with other settings has
        the id.
        """
        request = create_request(name, run_id, kind, labels, parent_run_id, conversation_id, producer_timeout)
        response = self._connection.call(lambda stubs: stubs.runs.CreateRun, request)
        return Run.from_proto(response.run)

    def get(self, run_id: str) -> Run:
        """Return the run with its current state."""
        response = self._connection.call(lambda stubs: stubs.runs.GetRun, GetRunRequest(run_id=run_id))
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
        include_system_runs: bool = False,
        page_size: int | None = None,
    ) -> Iterator[Run]:
        """Yield the runs that match all filters, the newest first, in pages.

        `kinds`, `states` and `names` match if any of their values does; a name may end in `*`. All `labels` must match.
        `created_after` is inclusive, `created_before` exclusive. With `include_system_runs`, runs that the server
        writes itself match too, such as the audit and the results of rules. `page_size` is the number of runs per call:
        1 to 1,000; default 100.

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
            include_system_runs=include_system_runs,
        )
        request = ListRunsRequest(filter=matching, page_size=page_size)
        for page in self._connection.pages(lambda stubs: stubs.runs.ListRuns, request):
            for run in page.runs:
                yield Run.from_proto(run)

    def wait(self, run_id: str, timeout: float | None = None) -> Run:
        """Wait until a run has ended in any state, and return it. Check its `state`.

        Raises WaitTimeout after `timeout` seconds, and Unavailable if the server cannot be reached for the client's own
        timeout.

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
        include_system_runs: bool = False,
        resume_token: str = "",
    ) -> Iterator[RunChange]:
        """Yield a change for each matching run with its current state, then "caught_up", then each change.

        A change has the type "run" when a run that matches is created or changes state, "left" when it stops matching,
        and "deleted" when it is deleted. Never ends, and reconnects by itself; after a reconnect a run may be repeated
        in the same state. Filters are those of `list`. `resume_token` is that of the last change that was handled, at
        most 24 hours old: the watch continues after it. Raises StreamCut if the connection cannot be restored within
        60 seconds.

        Example:
            for change in client.runs.watch(states=["running", "succeeded"]):
                if change.run is not None:
                    print(change.run.name, change.run.state)
                if change.type == "caught_up":
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
            include_system_runs=include_system_runs,
        )
        return watch_runs(self._connection, matching, resume_token)

    def cancel(self, run_id: str, reason: str = "") -> Run:
        """Ask the producer of a run to stop, and return the run. The run ends when its producer ends it.

        `reason` is a text for people. A run that has ended is returned unchanged.

        Example:
            with client.runs.start("agent") as run:
                client.runs.cancel(run.id, "too slow")
                run.wait_cancelled()
                assert run.cancel_reason == "too slow"
        """
        request = CancelRunRequest(run_id=run_id, reason=reason)
        response = self._connection.call(lambda stubs: stubs.runs.CancelRun, request)
        return Run.from_proto(response.run)

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended, and its log. Raises RunNotEnded for a run that has not."""
        self._connection.call(lambda stubs: stubs.runs.DeleteRun, DeleteRunRequest(run_id=run_id))

    def events(self, run_id: str, *, types: Iterable[str] = (), page_size: int | None = None) -> Iterator[Event]:
        """Yield the recorded events of a run in order, in pages, up to its present end.

        With `types`, only events of these types. `page_size` is the number of events per call: 1 to 1,000; default
        100.

        Example:
            [event] = [event for event in client.runs.events(run_id, types=["tool_call_finished"])]
            assert event.data.tool_name == "search_web"
        """
        request = ListEventsRequest(run_id=run_id, page_size=page_size or None, types=event_types(types))
        for page in self._connection.pages(lambda stubs: stubs.events.ListEvents, request):
            for event in page.events:
                yield wrap(event)

    def score(
        self,
        run_id: str,
        *,
        name: str,
        value: float | bool | str,
        explanation: str = "",
        evaluator: str = "",
        higher_is_better: bool | None = None,
        labels: Mapping[str, str] | None = None,
        score_id: str | None = None,
    ) -> str:
        """Record a score on a run, such as a user's feedback. The run need not have ended. Return the score's id.

        `value` is a number, a verdict (bool) or a class (str); `evaluator` names its author. The id is generated unless
        `score_id` is given; a score whose id is recorded already is not recorded again.

        Example:
            client.runs.score(run_id, name="helpful", value=False, explanation="It was warm.", evaluator="ada")
            assert [score.explanation for score in client.runs.scores(run_id)] == ["It was warm."]
        """
        chosen = score_id or new_id()
        request = RecordScoreRequest(
            score_id=chosen,
            run_id=run_id,
            score=feedback(name, value, explanation, evaluator, higher_is_better),
            labels=labels,
        )
        self._connection.call(lambda stubs: stubs.scores.RecordScore, request)
        return chosen

    def scores(self, run_id: str, *, page_size: int | None = None) -> Iterator[RecordedScore]:
        """Yield the scores of a run, of rules and of people, in pages."""
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
        """Return a run that this process executes: `with client.runs.start(...) as run`.

        `input` is any value that JSON can represent. With `producer_timeout` in seconds, the server ends the run as
        ABANDONED once this process has sent nothing for that long; the client sends heartbeats. `on_error` decides
        about events that cannot be recorded: "log" logs the first and keeps the agent running, "raise" raises from the
        method that publishes and at the end of the block. A run that starts in a row of an evaluation is its child
        unless `parent_run_id` is given.

        With "raise", raises ValueError or TypeError for arguments that are not valid.

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
        """Return a stream of a run's events: recorded ones first, then new ones. The first read opens it.

        `consumer` names the reader, of which a run has at most one stream; None generates a name. `resume_token`
        continues after the event that it belongs to; otherwise the stream begins at `start`. It ends after
        run_finished, or at the last recorded event with `stop="head"`. `types` selects event types; `deltas` merges
        text deltas or leaves them out.

        `timeout` and `idle_timeout` raise StreamTimeout and IdleTimeout. A connection that is cut is restored for up to
        `reconnect_timeout` (None: without limit), then StreamCut is raised. All are in seconds. `heartbeat_interval` is
        1 to 60 seconds. `take_over` acquires the consumer's lease from another session. `wait_for_run` waits for a run
        that does not exist yet instead of raising RunNotFound.

        `on_event` handlers are called with each event before it is returned, one at a time. An asynchronous handler
        that exceeds `handler_timeout` raises TimeoutError; exceptions of a handler reach the reader.

        After a stream is closed, the next stream of this client for the same run and consumer acquires the lease at
        once; before, it raises ConsumerBusy. Raises ValueError or TypeError for arguments that are not valid.

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
        return RunStream(
            self._streams,
            plan,
            resume_token=resume_token or "",
            limits=Limits(
                check_optional_seconds("timeout", timeout),
                check_optional_seconds("idle_timeout", idle_timeout),
                self._connection.clock,
            ),
            reconnect_timeout=reconnect_timeout,
            handlers=[on_event] if callable(on_event) else list(on_event),
            handler_timeout=handler_timeout,
        )
