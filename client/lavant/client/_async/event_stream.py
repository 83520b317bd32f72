"""Events of one run, in order, and the position in them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from operator import length_hint
from time import time_ns
from typing import Self
from weakref import ref

from lavant.client._async.concurrency import Closing, call_handler, current_reader
from lavant.client._async.subscription import Limits, Streams, Subscription
from lavant.client._reading.plan import Handler, LastEventId, StreamPlan, split_token
from lavant.client.errors import LavantError, StreamInUse
from lavant.client.events import Event, views
from lavant.client.models import Run
from lavant.v1 import event_pb2
from lavant.v1.event_service_pb2 import EventBatch, StreamEventsResponse
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED, RunFinished
from lavant.v1.run_pb2 import Run as RunProto

# Many more, alive at once, would cost as much again in garbage collection.
_VIEWS_AT_ONCE = 100


class _Loop(AsyncIterator[Event]):
    """One loop over a stream. The stream refers to it weakly: when the loop is left, another one may begin."""

    __slots__ = ("__weakref__", "_stream", "reader")

    def __init__(self, stream: "EventStream") -> None:
        self.reader: int | None = None
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        stream = self._stream
        if stream._loop is None or stream._loop() is not self:
            stream._check_unread()
            self.reader, stream._loop = current_reader(), ref(self)
        while True:
            for event in stream._views:
                if stream._handlers:
                    await stream._call_handlers(event)
                return event
            await stream._fill()


class EventStream(Closing, AsyncIterator[Event]):
    """Base of streams of a run's events, and of their position. Keeps no events.

    A loop after the end reads the same events again, from the server.
    """

    def __init__(
        self,
        streams: Streams,
        plan: StreamPlan,
        *,
        resume_token: str,
        limits: Limits,
        reconnect_timeout: float | None,
        handlers: Sequence[Handler] = (),
        handler_timeout: float = 30.0,
    ) -> None:
        self.caught_up = False
        self.is_at_end = False
        # Whether the state of a run that has not ended is an event of its own whenever the stream is opened.
        self.reports_state = False
        self._streams = streams
        self._plan = plan
        self._session = streams.sessions.begin(plan.run_id, plan.consumer_id, take_over=plan.take_over)
        self._found: Run | None = None
        self._loop: ref[_Loop] | None = None
        self._is_filling = False
        self._limits = limits
        self._reconnect_timeout = reconnect_timeout
        self._handlers = handlers
        self._handler_timeout = handler_timeout
        self._token, self._skipped = split_token(resume_token)  # before the present frame
        self._frame_token = self._token  # after it
        self._begin = resume_token  # before all events returned
        self._begin_sequence = self._last_sequence = self._skipped
        self._subscription = self._subscribe(self._token)
        self._frame: Sequence[event_pb2.Event] = ()
        self._unread: Iterator[event_pb2.Event] = iter(())
        self._views: Iterator[Event] = iter(())
        self._rest: StreamEventsResponse | None = None  # of the present frame, after a state that it opened with
        self._catches_up = False
        self._finished: RunFinished | None = None
        self._texts: dict[bool, str] = {}

    @property
    def run(self) -> Run | None:
        """The run when the stream was opened last; None before.

        If the stream waited for the run, it is the run after its first events.
        """
        frame = self._subscription.opened
        return Run.from_proto(frame.opened.run) if frame is not None and self._is_run_known else self._found

    @property
    def resume_token(self) -> str:
        """Position after the last event returned, where a new stream continues; empty before the first frame.

        The server sends a token per frame of events. Between events of one frame this is the token before the frame,
        `~` and the sequence of the last event returned; only streams of this client accept that form. With
        `deltas="merged"`, a new stream may merge other deltas: a delta that extends beyond the position is returned
        whole, including text that was returned before.

        Example:
            async with client.runs.stream(run_id, consumer="ui") as stream:
                read = await anext(stream)
            later = client.runs.stream(run_id, consumer="ui", resume_token=stream.resume_token)
            following = await anext(later)
            assert following.sequence == read.sequence + 1
        """
        left = length_hint(self._views) + length_hint(self._unread)
        token, returned = self._frame_token, self._skipped
        if left:
            token = self._token
            returned = self._frame[-left - 1].sequence if left < len(self._frame) else self._frame[0].sequence - 1
        return f"{token}~{returned}" if returned else token

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event received, returned or not."""
        return self._last_sequence

    @property
    def last_event_id(self) -> str:
        """Position as the id of a server-sent event: includes the session, so that a returning reader continues it."""
        token, _, sequence = self.resume_token.partition("~")
        return f"{token}~{sequence or 0}~{self._subscription.session_id}" if token else ""

    @property
    def run_proto(self) -> RunProto | None:
        """The contract's Run when the stream was opened last."""
        frame = self._subscription.opened
        return frame.opened.run if frame is not None and self._is_run_known else None

    @property
    def has_read_end(self) -> bool:
        """Whether the run's last event was received."""
        return self._finished is not None

    async def open(self, last: LastEventId | None = None) -> None:
        """Open the stream without reading an event. Raises what the server refuses it with.

        `last` replaces the position of a stream that was not opened yet.

        Example:
            stream = client.runs.stream(run_id)
            await stream.open()
            assert stream.run.id == run_id
        """
        if last is not None and last.token:
            if self._subscription.opened is not None:
                raise StreamInUse("this stream was read before: pass a new one")
            self._token = self._frame_token = self._begin = last.token
            self._begin_sequence = self._last_sequence = self._skipped = last.sequence
            if last.session_id and self._plan.consumer_id:
                # Its earlier attempts may be another process's: of attempts by the clock, the later one is the newer.
                self._session.id, self._session.attempt = last.session_id, time_ns()
            self._subscription = self._subscribe(last.token)
        self._limits.start()
        while self._subscription.opened is None and (frame := await self._subscription.next()) is not None:
            self._accept(frame)

    async def has_next(self) -> bool:
        """Wait for the next event without returning it. Return False at the end."""
        if not length_hint(self._views):
            try:
                await self._fill()
            except StopAsyncIteration:
                return False
        return True

    async def aclose(self) -> None:
        """Close the stream: cancels the call at once. May be called again."""
        self._subscription.close()

    def __del__(self) -> None:
        with suppress(RuntimeError, AttributeError):  # The event loop is closed, or __init__ raised.
            self._subscription.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._replay() if self.is_at_end else _Loop(self)

    async def __anext__(self) -> Event:
        self._check_unread()
        while True:
            for event in self._views:
                if self._handlers:
                    await self._call_handlers(event)
                return event
            await self._fill()

    @property
    def _is_run_known(self) -> bool:
        frame = self._subscription.opened
        return frame is not None and frame.opened.HasField("run")

    async def _replay(self) -> AsyncIterator[Event]:
        """Yield the events of the ended stream again, read by another stream."""
        again = replace(self._plan, consumer_id="", deltas="none" if self._plan.deltas == "none" else "all")
        async with EventStream(
            self._streams,
            again,
            resume_token=self._begin,
            limits=self._limits,
            reconnect_timeout=self._reconnect_timeout,
        ) as stream:
            async for event in stream:
                if event.sequence > self._last_sequence:
                    break
                yield event

    def _subscribe(self, token: str) -> Subscription[StreamEventsResponse]:
        return self._streams.subscribe(self._plan, self._session, token, self._limits, self._reconnect_timeout)

    def _check_unread(self) -> None:
        """Raise StreamInUse while somebody else reads."""
        other = None if self._loop is None else self._loop()
        if self._is_filling or (other is not None and other.reader != current_reader()):
            raise StreamInUse("this stream is being read already: open one stream per reader with client.runs.stream()")

    async def _call_handlers(self, event: Event) -> None:
        for handler in self._handlers:
            await call_handler(handler, event, self._handler_timeout)

    async def _fill(self) -> None:
        if self._is_filling:
            self._check_unread()
        self._is_filling = True
        try:
            await self._read_frames()
        finally:
            self._is_filling = False

    async def _read_frames(self) -> None:
        self._limits.start()
        while not length_hint(self._unread):
            if self._rest is not None:
                rest, self._rest = self._rest, None
                self._accept_rest(rest)
                continue
            self.caught_up = self._catches_up  # all events of the frame that caught up were returned
            frame = await self._subscription.next()
            if frame is None:
                self.is_at_end = True
                raise StopAsyncIteration
            self._accept(frame)
        if self._found is None and not self._is_run_known:
            # The stream was opened before the run was created, so no frame has the run.
            with suppress(LavantError):
                self._found = await self._streams.get_run(self._plan.run_id, self._limits.left())
        self._views = iter(views(islice(self._unread, _VIEWS_AT_ONCE), self._token))

    def _accept(self, frame: StreamEventsResponse) -> None:
        """Take a frame, after all events of the last one were returned."""
        if frame.HasField("opened"):
            start = frame.opened.start_token
            self._move_to(start)
            self._begin = self._begin or start
            if self.reports_state and 0 < frame.opened.run.state < RUN_STATE_SUCCEEDED:
                # Numbered like the next event, so that a token before it and one after it both lead to that event.
                state = event_pb2.RunStateChanged(state=frame.opened.run.state)
                self._token = start
                self._frame = [event_pb2.Event(sequence=self._last_sequence + 1, run_state_changed=state)]
                self._unread = iter(self._frame)
                self._rest = frame
                return
        self._accept_rest(frame)

    def _accept_rest(self, frame: StreamEventsResponse) -> None:
        self._move_to(frame.resume_token)
        self._catches_up = self._catches_up or frame.HasField("caught_up")
        if frame.HasField("events"):
            self._accept_events(frame.events)

    def _move_to(self, token: str) -> None:
        self._token, self._frame_token = self._frame_token, token

    def _accept_events(self, batch: EventBatch) -> None:
        self._frame = batch.events
        if not self._frame:
            return
        first_new, last = self._last_sequence + 1, self._frame[-1]
        if self._frame[0].sequence < first_new:
            self._frame = [event for event in self._frame if event.sequence >= first_new]
        self._unread = iter(self._frame)
        if last.sequence >= self._skipped:
            self._skipped = 0
        self._last_sequence = max(self._last_sequence, last.sequence)
        if last.HasField("run_finished"):
            self._finished = last.run_finished
