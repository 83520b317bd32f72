"""Values derived from a run's events: text, progress, and tool calls with their results."""

from lavant.client.event_data import MessageFinished, MessageStarted, StepStarted
from lavant.client.events import Event, ToolCallFinishedEvent, ToolCallStartedEvent
from lavant.client.models import Progress, TextChunk, ToolCall
from lavant.client.states import Role
from lavant.contract.speakers import Speakers
from lavant.v1 import event_pb2


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
        self._speakers.add(event.proto)
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
            self._speakers.add(event.proto)
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
                self._speakers.add(event.proto)
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
