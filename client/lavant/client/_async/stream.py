"""Reading a run's events, over as many calls as it takes."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from lavant.client._async.concurrency import Cancelled, ClientClosed, finish, is_being_cancelled, read
from lavant.client._async.connection import Connection
from lavant.client._async.limits import Limits
from lavant.client._async.reconnect import Reconnect
from lavant.client._errors import LavantError, RunNotEnded, StreamCut, Unavailable
from lavant.client._events import Event, wrap
from lavant.client._models import Run, RunResult, ToolCall
from lavant.client._plan import StreamPlan, split_token
from lavant.client._projections import TextProjection, ToolCallProjection
from lavant.client._sessions import Session, Sessions
from lavant.client._status import from_rpc_error, raise_for_state
from lavant.v1.event_service_pb2 import EventBatch, StreamEnd, StreamEndReason, StreamEventsResponse
from lavant.v1.run_pb2 import RunFinished

if TYPE_CHECKING:
    from lavant.client._async.concurrency import StreamCall

MISSED_HEARTBEATS = 3
STATUS_TIMEOUT = 1.0


class AsyncRunStream:
    """A run's events, in order, each exactly once; reconnects by itself, unseen.

    Iterate over it once, in one task. Leaving its `async with` block cancels the call at once and
    frees the consumer's place; so does dropping the last reference to it. Ends after the last event
    that was asked for; a run that failed ends it like one that succeeded, so look at `run_finished`,
    or use `result()`, which raises. Raises StreamCut if it cannot be resumed in time, StreamTimeout and
    IdleTimeout as asked, and what the server refuses with. Closing a stream never cancels the run.
    """

    def __init__(
        self,
        connection: Connection,
        plan: StreamPlan,
        get_run: Callable[[str], Awaitable[Run]],
        *,
        session: Session,
        sessions: Sessions,
        resume_token: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        reconnect_timeout: float | None = 60.0,
    ) -> None:
        self.run: Run | None = None
        self.caught_up = False
        self._connection = connection
        self._plan = plan
        self._get_run = get_run
        self._sessions = sessions
        self._session = session
        self._call: StreamCall | None = None
        self._token, self._handed_out = split_token(resume_token or "")
        self._frame_token = self._token
        self._limits = Limits(timeout, idle_timeout)
        self._reconnect = Reconnect(connection.new_backoff(), reconnect_timeout)
        self._heartbeat = plan.heartbeat_interval
        self._buffer: deque[Event] = deque()
        self._last_sequence = self._handed_out
        self._text = TextProjection()
        self._chunk = ""
        self._end: StreamEnd | None = None
        self._finished: RunFinished | None = None
        self._opened = self._closed = False

    @property
    def resume_token(self) -> str:
        """Where a new stream continues: exactly behind the last event handed out; empty before the first frame.

        Events come in frames, and the server's tokens with frames: while a frame is handed out only in
        part, this is the token before it, with `~` and the last sequence handed out. Only a stream of
        this client can be opened with such a token. With deltas="merged" the new stream may merge
        other deltas: an event that reaches beyond that sequence is given whole, text that was handed
        out included.
        """
        return f"{self._token}~{self._handed_out}" if self._handed_out else self._token

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event received, handed out or not."""
        return self._last_sequence

    @property
    async def text_chunks(self) -> AsyncIterator[str]:
        """What the run's assistants say, chunk by chunk; raises at the end as `result` does."""
        async for _ in self:
            if self._chunk:
                yield self._chunk
        await self.result()

    @property
    async def tool_calls(self) -> AsyncIterator[ToolCall]:
        """Tool calls with their results, each once it is done; raises at the end as `result` does.

        Calls that were never done come last, without an outcome.
        """
        calls = ToolCallProjection()
        async for event in self:
            if call := calls.add(event):
                yield call
        for call in calls.unfinished():
            yield call
        await self.result()

    async def text(self) -> str:
        """Read to the end; return what the run's assistants said. Raises as `result` does.

        That is the text of all events that this stream has handed out, before this call or during it:
        a stream keeps it.
        """
        await self.result()
        return self._text.text

    async def result(self) -> RunResult:
        """Read to the end; return the run's result.

        Raises RunFailed, RunCancelled, RunTimedOut or RunAbandoned, and RunNotEnded if the stream
        ends before the run.
        """
        async for _ in self:
            pass
        result = await self._find_result()
        raise_for_state(result)
        return result

    async def aclose(self) -> None:
        """End the stream: cancels the call at once. May be called again."""
        self._closed = True
        self._let_go()

    def __del__(self) -> None:
        with suppress(RuntimeError, AttributeError):  # The event loop is closed, or __init__ raised.
            self._let_go()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not self._buffer:
            await self._fill()
        event = self._buffer.popleft()
        if self._buffer:
            self._handed_out = event.sequence
        else:
            self._token, self._handed_out = self._frame_token, 0
        self._chunk = self._text.add(event)
        return event

    async def _fill(self) -> None:
        self._limits.start()
        while not self._buffer:
            if self._end is not None:
                raise StopAsyncIteration
            if self._closed:
                raise StreamCut("the stream was closed")
            await self._advance()

    async def _advance(self) -> None:
        cut: LavantError = Unavailable("the stream ended without saying so")
        frame = None
        try:
            frame = await read(self._call or self._open(), self._patience())
        except TimeoutError:
            cut = Unavailable("no frame for too long")
        except grpc.RpcError as failure:
            cut = from_rpc_error(failure)
        except ClientClosed:
            raise StreamCut("the client was closed") from None
        except Cancelled:
            self._drop_call()
            if is_being_cancelled():
                raise
            raise StreamCut("the stream or its client was closed") from None
        if frame is None:
            await self._recover(cut)
        else:
            self._reconnect.progress()
            await self._accept(frame)

    async def _accept(self, frame: StreamEventsResponse) -> None:
        self._frame_token = frame.resume_token
        match frame.WhichOneof("frame"):
            case "events":
                self._accept_events(frame.events)
            case "opened":
                self._opened = True
                self._sessions.opened(self._session)
                self.run = Run.from_proto(frame.opened.run) if frame.opened.HasField("run") else None
                self._heartbeat = frame.opened.heartbeat_interval.ToMilliseconds() / 1000 or self._heartbeat
            case "caught_up":
                self.caught_up = True
            case "end":
                await self._accept_end(frame.end)
        if not self._buffer:
            self._token = self._frame_token

    def _accept_events(self, batch: EventBatch) -> None:
        events = batch.events
        if events and events[0].sequence <= self._last_sequence:
            self._buffer.extend(wrap(event) for event in events if event.sequence > self._last_sequence)
        else:
            self._buffer.extend(map(wrap, events))
        if events:
            if not self._buffer and events[-1].sequence >= self._handed_out:
                self._handed_out = 0
            self._last_sequence = max(self._last_sequence, events[-1].sequence)
            if events[-1].HasField("run_finished"):
                self._finished = events[-1].run_finished

    async def _accept_end(self, end: StreamEnd) -> None:
        call, self._call = self._call, None
        if call is not None:
            await finish(call, STATUS_TIMEOUT)
        idle = end.reason == StreamEndReason.STREAM_END_REASON_IDLE
        if not end.reconnect and not idle:
            self._end = end
            self._let_go()
            return
        delay = end.retry_delay.ToMilliseconds() / 1000
        if delay:
            await self._reconnect.pause(Unavailable("draining", retry_after=delay), self._limits.left())

    async def _recover(self, error: LavantError) -> None:
        self._drop_call()
        self._limits.check()
        await self._reconnect.pause(error, self._limits.left())

    def _open(self) -> "StreamCall":
        self._session.attempt += 1
        request = self._plan.request(self._session.attempt, self._frame_token, opened=self._opened)
        call = self._connection.events.StreamEvents(request, metadata=self._connection.metadata)
        self._call = call
        return call

    def _let_go(self) -> None:
        """Cancel the call, and let the consumer's next stream continue the session."""
        self._sessions.close(self._session)
        self._drop_call()

    def _drop_call(self) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            call.cancel()

    def _patience(self) -> float | None:
        """How long the next frame may take: some heartbeats, which come also while a run is waited for."""
        watchdog = MISSED_HEARTBEATS * self._heartbeat
        left = self._limits.left()
        return watchdog if left is None else min(watchdog, left)

    async def _find_result(self) -> RunResult:
        if self._finished is not None:
            return RunResult.from_proto(self._plan.run_id, self._finished)
        run = await self._get_run(self._plan.run_id)
        if run.result is None:
            raise RunNotEnded(f"run {run.id} has not ended yet")
        return run.result
