"""A whole run as one value."""

from pydantic import ConfigDict, Field, SkipValidation

from lavant.client._reading.projections import ProgressProjection, TextProjection, ToolCallProjection
from lavant.client._reading.steps import StepProjection
from lavant.client._reading.table import Shown, Table, cell
from lavant.client.events import Event
from lavant.client.models import ErrorInfo, Frozen, Progress, RunResult, Step, ToolCall, Usage


class Recording(Shown, Frozen):
    """A run that has ended, in any terminal state: check `result.state`.

    `text` is that of the run's own agent; text of nested agents is in their steps. `text` and `steps` leave out earlier
    attempts of retried steps; `tool_calls`, `errors` and `events` have everything that was read. `tool_calls` are in
    the order of their ends, then those that never ended, without an outcome. `steps` are the outermost ones; `children`
    and `walk()` lead to the others. `progress` is the last report of the run itself, or of a step if the run has none.
    `errors` did not end the run; the one that did is in `result`. `events` are not part of the JSON.

    Example:
        recording = await client.runs.stream(run_id).collect()
        assert recording.text == "It is cold."
        assert [call.name for call in recording.tool_calls] == ["search_web"]
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    result: RunResult
    text: str
    tool_calls: tuple[ToolCall, ...]
    steps: tuple[Step, ...]
    progress: Progress | None
    errors: tuple[ErrorInfo, ...]
    events: SkipValidation[tuple[Event, ...]] = Field(exclude=True, repr=False)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.result.run_id

    @property
    def total_steps(self) -> int:
        """Number of steps, nested ones included. A step that was tried again counts once."""
        return sum(1 for root in self.steps for _ in root.walk())

    @property
    def usage(self) -> Usage:
        """Tokens and cost of the run: as reported at its end, else the sum over its steps, else as last reported.

        A step's usage excludes that of nested steps, so each is counted once.
        """
        if self.result.usage is not None:
            return self.result.usage
        found = [step.usage for root in self.steps for step in root.walk() if step.usage is not None]
        if not found and self.progress is not None and self.progress.usage is not None:
            found = [self.progress.usage]
        return sum(found[1:], found[0]) if found else Usage()

    def __repr__(self) -> str:
        counts = f"{self.total_steps} steps, {len(self.tool_calls)} tool calls, {len(self.events)} events"
        text = cell(self.text)
        return f"Recording(run_id={self.run_id!r}, state={self.result.state.value!r}, text={text!r}, <{counts}>)"

    def _table(self) -> Table:
        heading = f"{self.run_id} {self.result.state.value}: {cell(self.text)}".rstrip(": ")
        steps = (step for root in self.steps for step in root.walk())
        rows = (
            (step.name, step.kind, step.state, step.duration, step.usage and step.usage.total_tokens) for step in steps
        )
        return Table.of(heading, ["step", "kind", "state", "duration", "tokens"], rows, self.total_steps)


class RecordingProjection:
    """Collects a run's events and the values derived from them. Memory grows with the run."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._text = TextProjection()
        self._calls = ToolCallProjection()
        self._done_calls: list[ToolCall] = []
        self._steps = StepProjection()
        self._progress = ProgressProjection()
        self._errors: list[ErrorInfo] = []

    def add(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)
        self._text.add(event)
        self._steps.add(event)
        if event.type == "text_delta":  # most events are, and nothing else is made of them
            return
        self._progress.add(event)
        if call := self._calls.add(event):
            self._done_calls.append(call)
        elif event.type == "error_reported":
            self._errors.append(event.data.error)

    def recording(self, result: RunResult) -> Recording:
        """Return the recording, with the result of the run."""
        return Recording(
            result=result,
            text=self._text.text,
            tool_calls=(*self._done_calls, *self._calls.unfinished()),
            steps=self._steps.roots(),
            progress=self._progress.last,
            errors=tuple(self._errors),
            events=tuple(self._events),
        )
