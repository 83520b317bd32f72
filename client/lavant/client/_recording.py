"""All of a run in one value. Pure."""

from pydantic import ConfigDict, Field, SkipValidation

from lavant.client._events import Event
from lavant.client._frozen import Frozen
from lavant.client._models import ErrorInfo, Progress, RunResult, Step, ToolCall, Usage
from lavant.client._projections import ProgressProjection, TextProjection, ToolCallProjection
from lavant.client._steps import StepProjection
from lavant.client._table import Shown, Table, cell


class Recording(Shown, Frozen):
    """What was read of a run that has ended, well or not: look at `result.state`.

    `text` is what the run's own agent said: what nested agents said is the `text` of their steps. `text` and `steps`
    leave out what earlier attempts of a retried step did; `tool_calls`, `errors` and `events` have all that was read.
    `tool_calls` come in the order in which they ended, those that never did last, without an outcome. `steps` are the
    outermost; `children` and `walk()` lead to the others. `progress` is the last that the run itself reported, a
    step's if it reported none. `errors` did not end the run; the one that did is in `result`. `events` are no part of
    its JSON.

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
        """The run."""
        return self.result.run_id

    @property
    def total_steps(self) -> int:
        """How many steps there were, nested ones included; one that was tried again is one."""
        return sum(1 for root in self.steps for _ in root.walk())

    @property
    def usage(self) -> Usage:
        """Tokens and cost of the run: as it told at its end, else the sum of its steps', else as last reported.

        A step's usage is its own, without that of the steps in it, so each is counted once.
        """
        if self.result.usage is not None:
            return self.result.usage
        told = [step.usage for root in self.steps for step in root.walk() if step.usage is not None]
        if not told and self.progress is not None and self.progress.usage is not None:
            told = [self.progress.usage]
        return sum(told[1:], told[0]) if told else Usage()

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
    """Collects a run's events, and all that is made of them. Memory grows with the run."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._text = TextProjection()
        self._calls = ToolCallProjection()
        self._done_calls: list[ToolCall] = []
        self._steps = StepProjection()
        self._progress = ProgressProjection()
        self._errors: list[ErrorInfo] = []

    def add(self, event: Event) -> None:
        """Take an event."""
        self._events.append(event)
        self._text.add(event)
        self._steps.add(event)
        self._progress.add(event)
        if call := self._calls.add(event):
            self._done_calls.append(call)
        elif event.type == "error_reported":
            self._errors.append(event.data.error)

    def recording(self, result: RunResult) -> Recording:
        """Return all of it, with how the run ended."""
        return Recording(
            result=result,
            text=self._text.text,
            tool_calls=(*self._done_calls, *self._calls.unfinished()),
            steps=self._steps.roots(),
            progress=self._progress.last,
            errors=tuple(self._errors),
            events=tuple(self._events),
        )
