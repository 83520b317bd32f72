# Made from _async/event_stream.py by client/unasync.py: change that one.
"""A run's events, one after the other, and the position in them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from operator import length_hint
from types import TracebackType
from typing import Self
from weakref import ref

from lavant.client._errors import LavantError, StreamInUse
from lavant.client._events import Event, views
from lavant.client._last_event_id import LastEventId
from lavant.client._models import Run
from lavant.client._plan import Handler, split_token
from lavant.client._sync.concurrency import UsageHints, call_handler, current_reader
from lavant.client._sync.limits import Limits
from lavant.client._sync.subscription import Subscription
from lavant.v1 import event_pb2
from lavant.v1.event_service_pb2 import EventBatch, StreamEventsResponse
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED, RunFinished
from lavant.v1.run_pb2 import Run as RunProto

# Many more, alive at once, would cost as much again in garbage collection.
_VIEWS_AT_ONCE = 100


class _Loop(Iterator[Event]):
    """One loop over a stream. It is gone as soon as the loop is left: while it is there, the loop goes on."""

    __slots__ = ("__weakref__", "_stream", "reader")

    def __init__(self, stream: "EventStream") -> None:
        self.reader: int | None = None
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        stream = self._stream
        if stream._loop is None or stream._loop() is not self:
            stream._check_unread()
            self.reader, stream._loop = current_reader(), ref(self)
        while True:
            for event in stream._views:
                if stream._handlers:
                    stream._call_handlers(event)
                return event
            stream._fill()


class EventStream(UsageHints, Iterator[Event]):
    """Hands out events from a position on, and knows behind which one it is. No events are kept.

    A loop over a stream that has come to its end reads the same events once more, from the server.
    """

    def __init__(
        self,
        new_subscription: Callable[[str, str], Subscription[StreamEventsResponse]],
        get_run: Callable[[float | None], Run],
        limits: Limits,
        *,
        resume_token: str,
        handlers: Sequence[Handler],
        handler_timeout: float,
    ) -> None:
        self.caught_up = False
        self.is_at_end = False
        # Whether the state of a run that has not ended is an event of its own whenever the stream is opened.
        self.reports_state = False
        self._get_run = get_run
        self._found: Run | None = None
        self._loop: ref[_Loop] | None = None
        self._is_filling = False
        self._limits = limits
        self._handlers = handlers
        self._handler_timeout = handler_timeout
        self._token, self._skipped = split_token(resume_token)  # before the frame at hand
        self._frame_token = self._token  # behind it
        self._begin = resume_token  # before all that is handed out
        self._begin_sequence = self._last_sequence = self._skipped
        self._new_subscription = new_subscription
        self._subscription = new_subscription(self._token, "")
        self._frame: Sequence[event_pb2.Event] = ()
        self._unread: Iterator[event_pb2.Event] = iter(())
        self._views: Iterator[Event] = iter(())
        self._finished: RunFinished | None = None

    @property
    def run(self) -> Run | None:
        """The run as it stood when the stream was opened last; one that was waited for, as of its first events.

        None before that.
        """
        frame = self._subscription.opened
        return Run.from_proto(frame.opened.run) if frame is not None and self._is_run_known else self._found

    @property
    def resume_token(self) -> str:
        """Where a new stream continues: exactly behind the last event handed out; empty before the first frame.

        Events come in frames, and the server's tokens with frames: while a frame is handed out only in
        part, this is the token before it, with `~` and the last sequence handed out. Only a stream of
        this client can be opened with such a token. With deltas="merged" the new stream may merge
        other deltas: an event that reaches beyond that sequence is given whole, text that was handed
        out included.

        Example:
            with client.runs.stream(run_id, consumer="ui") as stream:
                read = next(stream)
            later = client.runs.stream(run_id, consumer="ui", resume_token=stream.resume_token)
            following = next(later)
            assert following.sequence == read.sequence + 1
        """
        left = length_hint(self._views) + length_hint(self._unread)
        token, handed_out = self._frame_token, self._skipped
        if left:
            token = self._token
            handed_out = self._frame[-left - 1].sequence if left < len(self._frame) else self._frame[0].sequence - 1
        return f"{token}~{handed_out}" if handed_out else token

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event received, handed out or not."""
        return self._last_sequence

    @property
    def last_event_id(self) -> str:
        """The same for server-sent events: with the stream's session, by which its reader is known when it is back."""
        token, _, sequence = self.resume_token.partition("~")
        return f"{token}~{sequence or 0}~{self._subscription.session_id}" if token else ""

    @property
    def run_proto(self) -> RunProto | None:
        """The run as it stood when the stream was opened last, as the contract has it."""
        frame = self._subscription.opened
        return frame.opened.run if frame is not None and self._is_run_known else None

    @property
    def has_read_end(self) -> bool:
        """Whether the run's last event was received."""
        return self._finished is not None

    def open(self, last: LastEventId | None = None) -> None:
        """Open the stream now, without reading an event: raises what the server refuses with.

        `last` is where to begin instead, of a stream that was not opened yet.

        Example:
            stream = client.runs.stream(run_id)
            stream.open()
            assert stream.run.id == run_id
        """
        if last is not None and last.token:
            if self._subscription.opened is not None:
                raise StreamInUse("this stream was read already: give a stream that nothing was read of")
            self._token = self._frame_token = self._begin = last.token
            self._begin_sequence = self._last_sequence = self._skipped = last.sequence
            self._subscription = self._new_subscription(last.token, last.session_id)
        self._limits.start()
        while self._subscription.opened is None and (frame := self._subscription.next()) is not None:
            self._accept(frame)

    def has_next(self) -> bool:
        """Wait for the next event without handing it out; return whether there is one: False at the end."""
        if not length_hint(self._views):
            try:
                self._fill()
            except StopIteration:
                return False
        return True

    def close(self) -> None:
        """End the stream: cancels the call at once. May be called again."""
        self._subscription.close()

    def __del__(self) -> None:
        with suppress(RuntimeError, AttributeError):  # __init__ raised.
            self._subscription.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self._replay() if self.is_at_end else _Loop(self)

    def __next__(self) -> Event:
        self._check_unread()
        while True:
            for event in self._views:
                if self._handlers:
                    self._call_handlers(event)
                return event
            self._fill()

    @property
    def _is_run_known(self) -> bool:
        frame = self._subscription.opened
        return frame is not None and frame.opened.HasField("run")

    def _replay(self) -> Iterator[Event]:
        """Read once more what was handed out, by a stream of its own."""
        raise NotImplementedError

    def _check_unread(self) -> None:
        """Raise StreamInUse if somebody else is in the middle of reading."""
        other = None if self._loop is None else self._loop()
        if self._is_filling or (other is not None and other.reader != current_reader()):
            raise StreamInUse("this stream is being read already: open one stream per reader with client.runs.stream()")

    def _call_handlers(self, event: Event) -> None:
        for handler in self._handlers:
            call_handler(handler, event, self._handler_timeout)

    def _fill(self) -> None:
        if self._is_filling:
            self._check_unread()
        self._is_filling = True
        try:
            self._read_frames()
        finally:
            self._is_filling = False

    def _read_frames(self) -> None:
        self._limits.start()
        while not length_hint(self._unread):
            frame = self._subscription.next()
            if frame is None:
                self.is_at_end = True
                raise StopIteration
            self._accept(frame)
        if self._found is None and not self._is_run_known:
            # It was waited for: the stream was opened before it, and its events tell no more than that it exists.
            with suppress(LavantError):
                self._found = self._get_run(self._limits.left())
        self._views = iter(views(islice(self._unread, _VIEWS_AT_ONCE), self._token))

    def _accept(self, frame: StreamEventsResponse) -> None:
        """Take a frame, once all of the last one is handed out."""
        self._token, self._frame_token = self._frame_token, frame.resume_token
        self._begin = self._begin or frame.resume_token
        if frame.HasField("events"):
            self._accept_events(frame.events)
        elif frame.HasField("caught_up"):
            self.caught_up = True
        elif self.reports_state and frame.HasField("opened") and 0 < frame.opened.run.state < RUN_STATE_SUCCEEDED:
            # In the place of the next event, so that a token before it and one behind it both lead to that one.
            state = event_pb2.RunStateChanged(state=frame.opened.run.state)
            self._token = frame.resume_token
            self._frame = [event_pb2.Event(sequence=self._last_sequence + 1, run_state_changed=state)]
            self._unread = iter(self._frame)

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
