# Made from _async/subscription.py by client/unasync.py: change that one.
"""A stream's frames, over as many calls as it takes."""

from collections.abc import Callable
from typing import Generic, TypeVar

from lavant.client._errors import LavantError, StreamCut, Unavailable
from lavant.client._sessions import Session, Sessions
from lavant.client._sync.calls import Call, HungUp
from lavant.client._sync.connection import Connection
from lavant.client._sync.limits import Limits
from lavant.client._sync.reconnect import Reconnect
from lavant.v1.evaluation_service_pb2 import SampleRunsResponse
from lavant.v1.event_service_pb2 import StreamEnd, StreamEndReason, StreamEventsResponse

_Frame = TypeVar("_Frame", StreamEventsResponse, SampleRunsResponse)
MISSED_HEARTBEATS = 3
STATUS_TIMEOUT = 1.0


class Subscription(Generic[_Frame]):
    """Opens the stream, and again from the last frame's token after every cut and every planned end.

    `open_call` is given the attempt, the token, and whether the stream was open before. The server hears of each
    reconnect as the session's next attempt, so that it takes its own place over at once. Silence for three
    heartbeats is a cut, after which it calls over another connection.
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
        self._call: Call[_Frame] | None = None
        self._ended = self._closed = False

    @property
    def session_id(self) -> str:
        """The session that its calls are of; empty for an unnamed consumer, which has no others."""
        return self._session.id if self._session.key is not None else ""

    def next(self) -> _Frame | None:
        """Return the next frame, or None after the last one that was asked for.

        Raises StreamCut if it cannot be had in time or this side closed the stream, StreamTimeout and
        IdleTimeout by the limits, and what the server refuses with.
        """
        while not self._ended:
            cut: LavantError = Unavailable("the stream ended without saying so")
            try:
                frame = self._read()
            except TimeoutError:
                cut = Unavailable("the server did not answer")
            except HungUp:
                raise StreamCut("the stream or its client was closed") from None
            except LavantError as failure:
                cut = failure
            else:
                if frame is not None:
                    self._reconnect.progress()
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
            raise HungUp
        call, frame = self._call, None
        if call is None:
            self._connection.open_runs.wait_created()
            self._session.attempt += 1
            call = self._call = self._open_call(self._session.attempt, self._token, self.opened is not None)
        try:
            if self._closed:  # since, by another thread, which did not see the call
                raise HungUp
            frame = self._connection.read(call, MISSED_HEARTBEATS * self._heartbeat, self._left())
        finally:
            if frame is None:
                self._drop_call()
        return frame

    def _accept(self, frame: _Frame) -> None:
        self._token = frame.resume_token
        if frame.HasField("opened"):
            self.opened = frame
            self._sessions.opened(self._session)
            self._heartbeat = frame.opened.heartbeat_interval.ToMilliseconds() / 1000 or self._heartbeat
        elif frame.HasField("end"):
            self._accept_end(frame.end)

    def _accept_end(self, end: StreamEnd) -> None:
        call, self._call = self._call, None
        if call is not None:
            left = self._limits.left()
            call.finish(STATUS_TIMEOUT if left is None else min(STATUS_TIMEOUT, left))
        if not end.reconnect and end.reason != StreamEndReason.STREAM_END_REASON_IDLE:
            self._ended = True
            self.close()
            return
        delay = end.retry_delay.ToMilliseconds() / 1000
        if delay:
            self._reconnect.pause(Unavailable("draining", retry_after=delay), self._limits.left())

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _left(self) -> float | None:
        """How long the next frame may be waited for: by the stream's own limits, and to resume after a cut."""
        return min((left for left in (self._limits.left(), self._reconnect.left()) if left is not None), default=None)
