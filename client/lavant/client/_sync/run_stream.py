# Generated from _async/run_stream.py by client/unasync.py: change that file instead.
"""Streams of runs, and the values that are derived from their events."""

from collections.abc import Callable, Iterator
from typing import Self

from lavant.client._reading.projections import ProgressProjection, TextProjection, ToolCallProjection
from lavant.client._reading.recording import Recording, RecordingProjection
from lavant.client._reading.steps import StepProjection
from lavant.client._sync.concurrency import UsageHints
from lavant.client._sync.event_stream import EventStream
from lavant.client._wire.status import raise_unless_succeeded
from lavant.client.errors import LavantError, RunNotEnded
from lavant.client.models import Progress, RunResult, Step, TextChunk, ToolCall


class TextChunks(UsageHints, Iterator[TextChunk]):
    """Text of the run's own agent, chunk by chunk. Call it with `nested=True` to include nested agents.

    Example:
        for chunk in client.runs.stream(run_id).text_chunks:
            print(chunk, end="", flush=True)
        for chunk in client.runs.stream(run_id).text_chunks(nested=True):
            print(chunk.step_name, chunk)
    """

    def __init__(self, read: Callable[[bool], Iterator[TextChunk]]) -> None:
        self._read = read
        self._chunks: Iterator[TextChunk] | None = None

    def __call__(self, *, nested: bool = False) -> Iterator[TextChunk]:
        """Return the chunks; with `nested`, those of nested agents too."""
        return self._read(nested)

    def __iter__(self) -> Iterator[TextChunk]:
        return self._read(False)

    def __next__(self) -> TextChunk:
        if self._chunks is None:
            self._chunks = self._read(False)
        return next(self._chunks)


class RunStream(EventStream):
    """Stream of a run's events, in order, each exactly once. Reconnects by itself.

    One thread reads at a time; a second one gets StreamInUse. A loop that starts after another one was left continues
    after it. After the end, a loop or any other method reads the same events again, from the server. Leaving its `async
    with` block, or dropping the last reference, cancels the call and releases the consumer's lease; the run continues.

    The stream ends after the last event that was asked for, also for a run that failed: check `run_finished`, or call
    `result`, which raises. Raises StreamCut if the connection is not restored in time, StreamTimeout and IdleTimeout as
    asked for, and the errors of the server.

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

    @property
    def events(self) -> Self:
        """All events: the stream itself."""
        return self

    @property
    def text_chunks(self) -> TextChunks:
        """Text of the run's own agent, chunk by chunk; raises at the end like `result`.

        A chunk is a str with its step. `text_chunks(nested=True)` includes nested agents.

        Example:
            for chunk in client.runs.stream(run_id).text_chunks:
                print(chunk, end="", flush=True)
        """
        return TextChunks(self._read_chunks)

    @property
    def tool_calls(self) -> Iterator[ToolCall]:
        """Tool calls with their results, each when it is done; raises at the end like `result`.

        Calls that never ended come last, with an `outcome` of None.

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
        """Steps with their children, each when it is done; raises at the end like `result`.

        A step comes after its children. Steps that never ended come last, as trees, with a `state` of None.

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
        """Progress reports of the run and its steps; raises at the end like `result`.

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
        """Read to the end and return the whole run as one value. Holds all its events in memory.

        Raises like `result`; with `raise_for_state=False`, runs that did not succeed are returned too. Events that were
        returned before are read again.

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
        """Read to the end and return the text of the run's own agent; with `nested`, of nested agents too.

        Raises like `result`. The text includes events that this stream has returned before, which are read again: a
        stream keeps no events.

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
        """Read to the end and return the result of the run.

        Raises RunFailed, RunCancelled, RunTimedOut or RunAbandoned if it did not succeed, and RunNotEnded if the stream
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

    def _whole(self) -> Self:
        """Return the stream, at a position from which a loop reads all events, also those that were returned before."""
        if self._last_sequence != self._begin_sequence:
            self._drain()
        return self

    def _find_result(self) -> RunResult:
        if self._finished is not None:
            return RunResult.from_proto(self._finished, run_id=self._plan.run_id)
        self._limits.start()
        try:
            run = self._streams.get_run(self._plan.run_id, self._limits.left())
        except LavantError:
            self._limits.check()
            raise
        if run.result is None:
            raise RunNotEnded(f"run {run.id} has not ended")
        return run.result
