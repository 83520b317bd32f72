"""Values derived from a run's events: text, progress, and tool calls with their results."""

from dataclasses import dataclass

from lavant.client.event_data import MessageFinished, MessageStarted, StepStarted
from lavant.client.events import Event, ToolCallFinishedEvent, ToolCallStartedEvent
from lavant.client.models import Progress, TextChunk, ToolCall
from lavant.client.states import Role, StepKind
from lavant.v1 import event_pb2


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    is_nested: bool
    is_in_agent: bool


_RUN = _Place("", is_nested=False, is_in_agent=False)
_ACTS = ("message_started", "text_delta", "message_finished", "tool_call_started")


class Speakers:
    """Knows for every step whether it is part of a nested agent.

    A step is nested within a tool's step, and within an agent's step inside another agent. The run itself is an agent
    once it writes text, requests a model or calls a tool outside of agents' steps: every agent's step that starts later
    is nested. Before that, agents' outermost steps are the run's own, as where one agent hands over to the next. A step
    whose start was not read counts as the run's own.
    """

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._run_is_agent = False

    def add(self, event: Event) -> None:
        """Add an event. Those that are not about steps matter until the run is known to be an agent."""
        if event.type == "step_started":
            self._start(event.data)
        elif not self._run_is_agent and event.type in _ACTS:
            self._run_is_agent = not self._place(event.step_id).is_in_agent

    def is_nested(self, step_id: str) -> bool:
        """Return whether a step is part of a nested agent."""
        return self._place(step_id).is_nested

    def name_of(self, step_id: str) -> str:
        """Return a step's name, empty for the run itself."""
        return self._place(step_id).name

    def _start(self, started: StepStarted) -> None:
        around = self._place(started.parent_step_id)
        is_agent, is_tool = started.kind is StepKind.AGENT, started.kind is StepKind.TOOL
        if started.kind in (StepKind.MODEL_REQUEST, StepKind.TOOL) and not around.is_in_agent:
            self._run_is_agent = True
        is_nested = around.is_nested or is_tool or (is_agent and (around.is_in_agent or self._run_is_agent))
        self._places[started.step_id] = _Place(started.name, is_nested, around.is_in_agent or is_agent)

    def _place(self, step_id: str) -> _Place:
        return self._places.get(step_id, _RUN)


def is_assistant(role: Role) -> bool:
    """Return whether the role is an assistant's, as an unset one is taken to be."""
    return role in (Role.ASSISTANT, Role.UNSPECIFIED)


def text_of(finished: MessageFinished) -> str:
    """Return the text of a complete message."""
    return "".join(part.text for part in finished.parts)


class TextProjection:
    """Collects the text of a run's own agent, message by message; with `nested`, that of nested agents too.

    `add` returns the text to show next. A message without deltas adds its text when it is complete, and one that is
    longer than its deltas the rest; so the text does not depend on the deltas. When a step is tried again, the text of
    its earlier attempts and of their children is removed from `text`; text that was shown stays shown.
    """

    def __init__(self, *, nested: bool = False) -> None:
        self._speakers = Speakers()
        self._takes_nested = nested
        self._messages: dict[str, list[str]] = {}
        self._steps: dict[str, str] = {}
        self._silent: set[str] = set()
        self._begun: set[str] = set()
        self._parents: dict[str, str] = {}
        # While deltas of one message follow each other: the message, and what it has said. Most events are such.
        self._speaking: str | None = None
        self._said: list[str] = []

    @property
    def text(self) -> str:
        """Text so far."""
        return "".join("".join(chunks) for chunks in self._messages.values())

    def add(self, event: Event) -> str:
        """Return the text that an event adds."""
        if event.type == "text_delta":
            delta = event.proto.text_delta
            if delta.message_id != self._speaking:
                return self._speak(delta, event)
            text = delta.text
            self._said.append(text)
            return text
        self._speaking = None
        self._speakers.add(event)
        match event.type:
            case "message_started":
                self._start(event.data, event.step_id)
            case "message_finished":
                return self._finish(event.data, event.step_id)
            case "step_started":
                self._begin(event.data)
        return ""

    def add_chunk(self, event: Event) -> TextChunk | None:
        """Return the text that an event adds, with its position."""
        if not (text := self.add(event)):
            return None
        message_id = getattr(event.proto, event.type).message_id
        step_id = self._steps.get(message_id, event.step_id)
        return TextChunk(
            text,
            step_id=step_id,
            step_name=self._speakers.name_of(step_id),
            message_id=message_id,
            is_nested=self._speakers.is_nested(step_id),
        )

    def _start(self, started: MessageStarted, step_id: str) -> None:
        self._steps[started.message_id] = step_id
        self._begun.add(started.message_id)
        if is_assistant(started.role) and self._is_included(step_id):
            self._silent.discard(started.message_id)
        else:
            self._silent.add(started.message_id)

    def _is_included(self, step_id: str) -> bool:
        return self._takes_nested or not self._speakers.is_nested(step_id)

    def _speak(self, delta: event_pb2.TextDelta, event: Event) -> str:
        message_id, text = delta.message_id, delta.text
        if message_id in self._silent:
            return ""
        chunks = self._messages.get(message_id)
        if chunks is None:
            self._speakers.add(event)
            step_id = self._steps.setdefault(message_id, event.step_id)
            if not self._is_included(step_id):
                self._silent.add(message_id)
                return ""
            chunks = self._messages[message_id] = []
        chunks.append(text)
        self._speaking, self._said = message_id, chunks
        return text

    def _finish(self, finished: MessageFinished, step_id: str) -> str:
        message_id = finished.message_id
        step_id = self._steps.setdefault(message_id, step_id)
        if message_id in self._silent or not is_assistant(finished.role) or not self._is_included(step_id):
            return ""
        whole = text_of(finished)
        shown = "".join(self._messages.get(message_id, ()))
        began_here = message_id in self._begun or not shown
        self._messages[message_id] = [whole]
        # Of a message whose beginning was not read, nobody knows which part of the whole was shown.
        return whole[len(shown) :] if began_here and whole.startswith(shown) else ""

    def _begin(self, started: StepStarted) -> None:
        if started.attempt > 1:
            self._drop(started.step_id)
        self._parents.pop(started.step_id, None)
        self._parents[started.step_id] = started.parent_step_id

    def _drop(self, step_id: str) -> None:
        dropped = {step_id}
        # Parents come before their children: one pass finds all that are below.
        for child, parent in self._parents.items():
            if parent in dropped:
                dropped.add(child)
        for child in dropped:
            self._parents.pop(child, None)
        for message_id in [m for m, step in self._steps.items() if step in dropped]:
            self._messages.pop(message_id, None)
            del self._steps[message_id]
            self._silent.add(message_id)


class ProgressProjection:
    """Collects progress reports, each with its step."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        self._speakers = Speakers()

    def add(self, event: Event) -> Progress | None:
        """Return the progress that an event reports. `last` prefers the run's own to a nested agent's."""
        if event.type != "progress_reported":
            if event.type == "step_started":
                self._speakers.add(event)
            return None
        progress = Progress.from_proto(
            event.proto.progress_reported, step_id=event.step_id, step_name=self._speakers.name_of(event.step_id)
        )
        if self.last is None or self.last.step_id or not progress.step_id:
            self.last = progress
        return progress


class ToolCallProjection:
    """Pairs the start and the end of each tool call."""

    def __init__(self) -> None:
        self._open: dict[str, ToolCall] = {}

    def add(self, event: Event) -> ToolCall | None:
        """Return the call that an event completes, if it does."""
        if event.type == "tool_call_started":
            self._open[event.data.call.tool_call_id] = started_call(event)
        elif event.type == "tool_call_finished":
            return finished_call(self._open.pop(event.data.tool_call_id, None), event)
        return None

    def unfinished(self) -> tuple[ToolCall, ...]:
        """Return the calls that have not ended; their outcome is None."""
        return tuple(self._open.values())


def started_call(event: ToolCallStartedEvent) -> ToolCall:
    """Return a call that has started."""
    call = event.data.call
    return ToolCall(
        id=call.tool_call_id,
        name=call.tool_name,
        arguments=call.arguments,
        step_id=event.step_id,
    )


def finished_call(started: ToolCall | None, event: ToolCallFinishedEvent) -> ToolCall:
    """Return a call with its result. Without the event of its start it has no arguments."""
    finished = event.data
    call = started or ToolCall(id=finished.tool_call_id, name=finished.tool_name, arguments=None, step_id=event.step_id)
    return call.model_copy(
        update={
            "result": finished.result,
            "outcome": finished.outcome,
            "error": finished.error,
            "duration": finished.duration,
        }
    )
