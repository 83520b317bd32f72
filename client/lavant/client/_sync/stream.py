# Made from _async/stream.py by client/unasync.py: change that one.
"""Reading a run: its events, and what can be made of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Self

from lavant.client._errors import LavantError, RunNotEnded
from lavant.client._events import Event
from lavant.client._models import Progress, Run, RunResult, Step, ToolCall
from lavant.client._plan import Handler
from lavant.client._projections import ProgressProjection, TextProjection, ToolCallProjection
from lavant.client._recording import Recording, RecordingProjection
from lavant.client._status import raise_unless_succeeded
from lavant.client._steps import StepProjection
from lavant.client._sync.event_stream import EventStream
from lavant.client._sync.limits import Limits
from lavant.client._sync.subscription import Subscription
from lavant.client._sync.text_chunks import TextChunks
from lavant.client._text_chunk import TextChunk
from lavant.v1.event_service_pb2 import StreamEventsResponse


class RunStream(EventStream):
    """A run's events, in order, each exactly once; reconnects by itself, unseen.

    One loop at a time: a second task that reads it meanwhile gets StreamInUse. A loop that begins after another one
    was left goes on where that one stopped; once the stream has come to its end, a loop, or any of its methods,
    reads the same events again, by a stream of its own. Leaving its `with` block cancels the call at once and
    frees the consumer's place; so does dropping the last reference to it. Ends after the last event
    that was asked for; a run that failed ends it like one that succeeded, so look at `run_finished`,
    or use `result()`, which raises. Raises StreamCut if it cannot be resumed in time, StreamTimeout and
    IdleTimeout as asked, and what the server refuses with. Closing a stream never cancels the run.

    Example:
        stream = client.runs.stream(run_id)
        for event in stream:
            if event.type == "tool_call_finished":
                break
        later = client.runs.stream(run_id, resume_token=stream.resume_token)
        following = next(later)
        assert following.sequence == event.sequence + 1
        result = later.result()
        assert result.output == {"answer": "cold"}
    """

    def __init__(
        self,
        run_id: str,
        new_subscription: Callable[[str, str], Subscription[StreamEventsResponse]],
        get_run: Callable[[float | None], Run],
        read_again: "Callable[[str], RunStream]",
        limits: Limits,
        *,
        resume_token: str = "",
        handlers: Sequence[Handler] = (),
        handler_timeout: float = 30.0,
    ) -> None:
        super().__init__(
            new_subscription,
            get_run,
            limits,
            resume_token=resume_token,
            handlers=handlers,
            handler_timeout=handler_timeout,
        )
        self._run_id = run_id
        self._read_again = read_again
        self._texts: dict[bool, str] = {}

    @property
    def events(self) -> Self:
        """All events: the stream itself."""
        return self

    @property
    def text_chunks(self) -> TextChunks:
        """What the run's own agent says, chunk by chunk; raises at the end as `result` does.

        Each is a str that knows its step. `text_chunks(nested=True)` has what nested agents say too.

        Example:
            for chunk in client.runs.stream(run_id).text_chunks:
                print(chunk, end="", flush=True)
        """
        return TextChunks(self._read_chunks)

    @property
    def tool_calls(self) -> Iterator[ToolCall]:
        """Tool calls with their results, each once it is done; raises at the end as `result` does.

        Calls that were never done come last, without an outcome.

        Example:
            for call in client.runs.stream(run_id).tool_calls:
                print(call.name, call.arguments, call.result or call.error)
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

        Example:
            seconds = {step.name: step.duration for step in client.runs.stream(run_id).steps}
            assert seconds["plan"] < timedelta(minutes=1)
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
        """How far the run and its steps are, as they report it; raises at the end as `result` does.

        Example:
            for progress in client.runs.stream(evaluation_id).progress:
                print(f"{progress.completed} of {progress.total} {progress.label}")
        """
        reports = ProgressProjection()
        for event in self:
            if progress := reports.add(event):
                yield progress
        self.result()

    def collect(self, *, raise_for_state: bool = True) -> Recording:
        """Read to the end; return all of the run in one value. Holds all of its events in memory.

        Raises as `result` does; with raise_for_state=False, a run that ended other than well is returned too.
        Events that the stream has handed out before are read once more.

        Example:
            recording = client.runs.stream(failed_id).collect(raise_for_state=False)
            assert recording.result.error.message == "no such city"
        """
        collected = RecordingProjection()
        for event in self._whole():
            collected.add(event)
        result = self._find_result()
        if raise_for_state:
            raise_unless_succeeded(result)
        return collected.recording(result)

    def text(self, *, nested: bool = False) -> str:
        """Read to the end; return what the run's own agent said, with `nested` what nested agents said too.

        Raises as `result` does. That is the text of all events that this stream has handed out, before this call or
        during it. What was handed out before is read once more, by a stream of its own: a stream keeps no events.

        Example:
            assert client.runs.stream(run_id).text() == "It is cold."
        """
        if nested not in self._texts:
            text = TextProjection(nested=nested)
            for event in self._whole():
                text.add(event)
            self.result()
            self._texts[nested] = text.text
        return self._texts[nested]

    def result(self) -> RunResult:
        """Read to the end; return the run's result.

        Raises RunFailed, RunCancelled, RunTimedOut or RunAbandoned, and RunNotEnded if the stream
        ends before the run.

        Example:
            try:
                result = client.runs.stream(failed_id).result()
            except RunFailed as failed:
                result = failed.result
            assert result.error.type == "LookupError"
        """
        self._drain()
        result = self._find_result()
        raise_unless_succeeded(result)
        return result

    def _read_chunks(self, nested: bool) -> Iterator[TextChunk]:
        text = TextProjection(nested=nested)
        for event in self:
            if chunk := text.add_chunk(event):
                yield chunk
        self.result()

    def _drain(self) -> None:
        if not self.is_at_end:
            for _ in self:
                pass

    def _whole(self) -> Iterator[Event]:
        """All events of the stream, those that it has handed out before as well."""
        if self._last_sequence != self._begin_sequence:
            self._drain()
        for event in self:
            yield event

    def _replay(self) -> Iterator[Event]:
        with self._read_again(self._begin) as again:
            for event in again:
                if event.sequence > self._last_sequence:
                    break
                yield event

    def _find_result(self) -> RunResult:
        if self._finished is not None:
            return RunResult.from_proto(self._run_id, self._finished)
        self._limits.start()
        try:
            run = self._get_run(self._limits.left())
        except LavantError:
            self._limits.check()
            raise
        if run.result is None:
            raise RunNotEnded(f"run {run.id} has not ended yet")
        return run.result
