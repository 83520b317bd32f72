# Made from _async/stream.py by client/unasync.py: change that one.
"""Reading a run's events."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from lavant.client._errors import RunNotEnded
from lavant.client._events import Event, wrap
from lavant.client._models import Progress, Run, RunResult, Step, ToolCall
from lavant.client._plan import Handler, split_token
from lavant.client._projections import TextProjection, ToolCallProjection
from lavant.client._recording import Recording, RecordingProjection
from lavant.client._status import raise_unless_succeeded
from lavant.client._steps import StepProjection
from lavant.client._sync.concurrency import call_handler
from lavant.client._sync.limits import Limits
from lavant.client._sync.subscription import Subscription
from lavant.v1.event_service_pb2 import EventBatch, StreamEventsResponse
from lavant.v1.run_pb2 import RunFinished


class RunStream:
    """A run's events, in order, each exactly once; reconnects by itself, unseen.

    Iterate over it once, in one thread. Leaving its `with` block cancels the call at once and
    frees the consumer's place; so does dropping the last reference to it. Ends after the last event
    that was asked for; a run that failed ends it like one that succeeded, so look at `run_finished`,
    or use `result()`, which raises. Raises StreamCut if it cannot be resumed in time, StreamTimeout and
    IdleTimeout as asked, and what the server refuses with. Closing a stream never cancels the run.
    """

    def __init__(
        self,
        run_id: str,
        new_subscription: Callable[[str], Subscription],
        get_run: Callable[[str], Run],
        limits: Limits,
        *,
        resume_token: str = "",
        handlers: Sequence[Handler] = (),
        handler_timeout: float = 30.0,
    ) -> None:
        self.caught_up = False
        self._run_id = run_id
        self._get_run = get_run
        self._limits = limits
        self._handlers = handlers
        self._handler_timeout = handler_timeout
        self._token, self._handed_out = split_token(resume_token)
        self._frame_token = self._token
        self._subscription = new_subscription(self._token)
        self._buffer: deque[Event] = deque()
        self._last: Event | None = None  # the last one handed out of a frame that holds more
        self._last_sequence = self._handed_out
        self._text = TextProjection()
        self._chunk = ""
        self._finished: RunFinished | None = None

    @property
    def run(self) -> Run | None:
        """The run as it stood when the stream was opened last; None before that, and while it is waited for."""
        return self._subscription.run

    @property
    def resume_token(self) -> str:
        """Where a new stream continues: exactly behind the last event handed out; empty before the first frame.

        Events come in frames, and the server's tokens with frames: while a frame is handed out only in
        part, this is the token before it, with `~` and the last sequence handed out. Only a stream of
        this client can be opened with such a token. With deltas="merged" the new stream may merge
        other deltas: an event that reaches beyond that sequence is given whole, text that was handed
        out included.
        """
        handed_out = self._last.sequence if self._last is not None else self._handed_out
        return f"{self._token}~{handed_out}" if handed_out else self._token

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event received, handed out or not."""
        return self._last_sequence

    @property
    def events(self) -> Self:
        """All events: the stream itself."""
        return self

    @property
    def text_chunks(self) -> Iterator[str]:
        """What the run's assistants say, chunk by chunk; raises at the end as `result` does."""
        for _ in self:
            if self._chunk:
                yield self._chunk
        self.result()

    @property
    def tool_calls(self) -> Iterator[ToolCall]:
        """Tool calls with their results, each once it is done; raises at the end as `result` does.

        Calls that were never done come last, without an outcome.
        """
        calls = ToolCallProjection()
        for event in self:
            if call := calls.add(event):
                yield call
        for call in calls.unfinished():
            yield call
        self.result()

    @property
    def steps(self) -> Iterator[Step]:
        """Steps, each once it is done, with those within it as its children; raises at the end as `result` does.

        An inner step comes before the one that it is part of. Steps that never ended come last, as trees,
        without a state.
        """
        steps = StepProjection(keep=False)
        for event in self:
            if step := steps.add(event):
                yield step
        for step in steps.unfinished():
            yield step
        self.result()

    @property
    def progress(self) -> Iterator[Progress]:
        """How far the run is, as it reports it; raises at the end as `result` does."""
        for event in self:
            if event.type == "progress_reported":
                yield Progress.from_proto(event.data)
        self.result()

    def collect(self, *, raise_for_state: bool = True) -> Recording:
        """Read to the end; return all of the run in one value. Holds all of its events in memory.

        Raises as `result` does; with raise_for_state=False, a run that ended other than well is returned too.
        Holds what this call reads, not what the stream has handed out before.
        """
        collected = RecordingProjection()
        for event in self:
            collected.add(event)
        result = self._find_result()
        if raise_for_state:
            raise_unless_succeeded(result)
        return collected.recording(result)

    def text(self) -> str:
        """Read to the end; return what the run's assistants said. Raises as `result` does.

        That is the text of all events that this stream has handed out, before this call or during it:
        a stream keeps it.
        """
        self.result()
        return self._text.text

    def result(self) -> RunResult:
        """Read to the end; return the run's result.

        Raises RunFailed, RunCancelled, RunTimedOut or RunAbandoned, and RunNotEnded if the stream
        ends before the run.
        """
        for _ in self:
            pass
        result = self._find_result()
        raise_unless_succeeded(result)
        return result

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

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if not self._buffer:
            self._fill()
        event = self._last = self._buffer.popleft()
        if not self._buffer:
            self._token, self._handed_out, self._last = self._frame_token, 0, None
        self._chunk = self._text.add(event)
        if self._handlers:
            self._call_handlers(event)
        return event

    def _call_handlers(self, event: Event) -> None:
        for handler in self._handlers:
            call_handler(handler, event, self._handler_timeout)

    def _fill(self) -> None:
        self._limits.start()
        while not self._buffer:
            frame = self._subscription.next()
            if frame is None:
                raise StopIteration
            self._accept(frame)

    def _accept(self, frame: StreamEventsResponse) -> None:
        self._frame_token = frame.resume_token
        if frame.HasField("events"):
            self._accept_events(frame.events)
        elif frame.HasField("caught_up"):
            self.caught_up = True
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

    def _find_result(self) -> RunResult:
        if self._finished is not None:
            return RunResult.from_proto(self._run_id, self._finished)
        run = self._get_run(self._run_id)
        if run.result is None:
            raise RunNotEnded(f"run {run.id} has not ended yet")
        return run.result
