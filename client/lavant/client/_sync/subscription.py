# Generated from _async/subscription.py by client/unasync.py: change that file instead.
"""Frames of a stream, over as many calls as it takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from lavant.client._reading.plan import Session, Sessions, StreamPlan
from lavant.client._sync.calls import Call, CallEnded
from lavant.client._sync.concurrency import Clock
from lavant.client._sync.reconnect import Reconnect
from lavant.client._sync.transport import Connection
from lavant.client._wire.ids import new_id
from lavant.client.errors import IdleTimeout, LavantError, StreamCut, StreamTimeout, Unavailable
from lavant.client.models import Run
from lavant.v1.evaluation_service_pb2 import SampleRunsResponse
from lavant.v1.event_service_pb2 import StreamEnd, StreamEventsResponse
from lavant.v1.run_service_pb2 import GetRunRequest


class Limits:
    """Time limits of a stream, in seconds: for the whole, and without an event.

    The whole counts from the first wait, idleness only while the reader waits.
    """

    def __init__(self, timeout: float | None, idle_timeout: float | None, clock: Clock) -> None:
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._clock = clock
        self._deadline: float | None = None
        self._idle_deadline: float | None = None

    def start(self) -> None:
        """Note that the reader starts to wait for an event."""
        now = self._clock.monotonic()
        if self._timeout is not None and self._deadline is None:
            self._deadline = now + self._timeout
        if self._idle_timeout is not None:
            self._idle_deadline = now + self._idle_timeout

    def left(self) -> float | None:
        """Return how long the reader may still wait; None without a limit."""
        ends = [end for end in (self._deadline, self._idle_deadline) if end is not None]
        return max(0.0, min(ends) - self._clock.monotonic()) if ends else None

    def check(self) -> None:
        """Raise StreamTimeout or IdleTimeout if a limit is exceeded."""
        now = self._clock.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise StreamTimeout(f"the stream did not end within {self._timeout:g} s")
        if self._idle_deadline is not None and now >= self._idle_deadline:
            raise IdleTimeout(f"no event for {self._idle_timeout:g} s")


_Frame = TypeVar("_Frame", StreamEventsResponse, SampleRunsResponse)
MISSED_HEARTBEATS = 3
STATUS_TIMEOUT = 1.0


class Subscription(Generic[_Frame]):
    """Frames of a stream, which is opened again from the last token after each cut and each planned end.

    `open_call` is called with the attempt, the token, and whether the stream was open before. Each reconnect is the
    session's next attempt, so the server lets it displace the earlier one at once. Silence for three heartbeats is a
    cut, after which another connection is used. After a planned end the stream is opened again at once if the call made
    progress, else after a delay as after a cut.
    """

    def __init__(
        self,
        connection: Connection,
        open_call: Callable[[int, str, bool], Call[_Frame]],
        session: Session,
        sessions: Sessions,
        *,
        resume_token: str,
        limits: Limits,
        reconnect_timeout: float | None,
        heartbeat_interval: float,
        run_id: str = "",
    ) -> None:
        self.opened: _Frame | None = None
        self._connection = connection
        self._open_call: Callable[[int, str, bool], Call[_Frame]] = open_call
        self._session = session
        self._sessions = sessions
        self._token = resume_token
        self._limits = limits
        self._reconnect = Reconnect(connection.new_backoff(), connection.clock, patience=reconnect_timeout)
        self._heartbeat = heartbeat_interval
        self._run_id = run_id
        self._call: Call[_Frame] | None = None
        self._end: StreamEnd | None = None
        self._ended = self._closed = self._has_caught_up = False
        self._last_sequence = 0

    @property
    def session_id(self) -> str:
        """Session of the calls; empty for an anonymous consumer."""
        return self._session.id if self._session.key is not None else ""

    def next(self) -> _Frame | None:
        """Return the next frame, or None after the last one that was asked for.

        Raises StreamCut if the stream cannot be resumed in time or this side closed it, StreamTimeout and IdleTimeout
        by the limits, and what the server refuses with.
        """
        while not self._ended:
            if self._end is not None and not self._closed:
                self._finish_call(self._end)
                continue
            cut: LavantError = Unavailable("the stream ended without saying so")
            try:
                frame = self._read()
            except TimeoutError:
                cut = Unavailable("the server did not answer")
            except CallEnded:
                raise StreamCut("the stream or its client was closed") from None
            except LavantError as failure:
                cut = failure
            else:
                if frame is not None:
                    self._accept(frame)
                    return frame
            self._limits.check()
            self._reconnect.pause(cut, self._limits.left())
        return None

    def close(self) -> None:
        """Cancel the call, and let the consumer's next stream continue the session. May be called again."""
        self._closed = True
        self._sessions.close(self._session)
        self._drop_call()

    def _read(self) -> _Frame | None:
        if self._closed:
            raise CallEnded
        call, frame = self._call, None
        if call is None:
            self._connection.open_runs.wait_created(self._run_id)
            self._session.attempt += 1
            self._reconnect.begin_call()
            call = self._call = self._open_call(self._session.attempt, self._token, self.opened is not None)
        try:
            if self._closed:  # since, by another thread, which did not see the call
                raise CallEnded
            frame = self._connection.read(call, MISSED_HEARTBEATS * self._heartbeat, self._left())
        finally:
            if frame is None:
                self._drop_call()
        return frame

    def _accept(self, frame: _Frame) -> None:
        self._token = frame.resume_token
        if self._brings_news(frame):
            self._reconnect.progress()
        elif frame.HasField("opened"):
            self._reconnect.connected()
        if frame.HasField("opened"):
            self.opened = type(frame)()
            self.opened.opened.CopyFrom(frame.opened)  # without the events, which would stay in memory with it
            self._sessions.opened(self._session)
            self._heartbeat = frame.opened.heartbeat_interval.ToMilliseconds() / 1000 or self._heartbeat
        if frame.HasField("end"):
            self._end = frame.end  # for the next read: a reader that is cancelled must not lose the rest of the frame

    def _finish_call(self, end: StreamEnd) -> None:
        call, self._call = self._call, None
        if call is not None:
            left = self._limits.left()
            call.finish(STATUS_TIMEOUT if left is None else min(STATUS_TIMEOUT, left))
        delay = end.retry_delay.ToMilliseconds() / 1000
        if not end.reconnect:
            self._ended = True
            self.close()
        elif delay or not self._reconnect.made_progress():
            planned = Unavailable("the server ended the stream as planned", retry_after=delay or None)
            self._reconnect.pause(planned, self._limits.left())
        self._end = None

    def _brings_news(self, frame: _Frame) -> bool:
        """Return whether a frame has what this stream did not have before: events, samples, or the first caught_up."""
        if frame.HasField("caught_up") and not self._has_caught_up:
            self._has_caught_up = True
            return True
        if isinstance(frame, SampleRunsResponse):
            return frame.HasField("samples")
        events = frame.events.events
        if not events or events[-1].sequence <= self._last_sequence:
            return False
        self._last_sequence = events[-1].sequence
        return True

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _left(self) -> float | None:
        """Return how long to wait for the next frame: by the stream's limits, and to resume after a cut."""
        return min((left for left in (self._limits.left(), self._reconnect.left()) if left is not None), default=None)


class Streams:
    """Opens the streams of a client, and continues the sessions of those that were closed."""

    def __init__(self, connection: Connection) -> None:
        self.sessions = Sessions()
        self.clock = connection.clock
        self._connection = connection

    def subscribe(
        self, plan: StreamPlan, session: Session, token: str, limits: Limits, reconnect_timeout: float | None
    ) -> Subscription[StreamEventsResponse]:
        """Return the frames of a stream after `token`; a plan without a consumer gets an anonymous one."""
        own = replace(plan, consumer_id=plan.consumer_id or f"anonymous-{new_id()}", session_id=session.id)

        def open_call(attempt: int, token: str, opened: bool) -> Call[StreamEventsResponse]:
            request = own.request(attempt, token, opened=opened)
            return self._connection.open(lambda stubs: stubs.events.StreamEvents, request)

        return Subscription(
            self._connection,
            open_call,
            session,
            self.sessions,
            resume_token=token,
            limits=limits,
            reconnect_timeout=reconnect_timeout,
            heartbeat_interval=plan.heartbeat_interval,
            run_id=plan.run_id,
        )

    def get_run(self, run_id: str, timeout: float | None) -> Run:
        """Return a run, within `timeout` seconds and the client's own timeout."""
        limit = self._connection.timeout if timeout is None else min(timeout, self._connection.timeout)
        request = GetRunRequest(run_id=run_id)
        return Run.from_proto((self._connection.call(lambda stubs: stubs.runs.GetRun, request, limit)).run)
