"""What readers make of events: text, and tool calls with their results. Pure."""

from lavant.client._event_data import MessageFinished, MessageStarted, StepStarted
from lavant.client._events import Event, ToolCallFinishedEvent, ToolCallStartedEvent
from lavant.client._models import ToolCall
from lavant.client._states import Role
from lavant.v1 import event_pb2


def is_assistant(role: Role) -> bool:
    """Whether it is an assistant who speaks; a role that is not set is taken as one."""
    return role in (Role.ASSISTANT, Role.UNSPECIFIED)


def text_of(finished: MessageFinished) -> str:
    """Return the text of a whole message."""
    return "".join(part.text for part in finished.parts)


class TextProjection:
    """Collects what a run's assistants say, message by message.

    `add` returns the text to show next. A message without deltas gives its text when it is whole.
    When a step is tried again, what its earlier attempts said, in steps below it too, is dropped
    from `text`; what was shown of it is shown.
    """

    def __init__(self) -> None:
        self._messages: dict[str, list[str]] = {}
        self._steps: dict[str, str] = {}
        self._silent: set[str] = set()
        self._parents: dict[str, str] = {}
        # While deltas of one message follow each other: the message, and what it has said. Most events are such.
        self._speaking: str | None = None
        self._said: list[str] = []

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join("".join(chunks) for chunks in self._messages.values())

    def add(self, event: Event) -> str:
        """Take an event; return the text that it adds."""
        if event.type == "text_delta":
            return self._delta(event.proto.text_delta, event)
        self._speaking = None
        match event.type:
            case "message_started":
                self._start(event.data, event.step_id)
            case "message_finished":
                return self._finish(event.data, event.step_id)
            case "step_started":
                self._begin(event.data)
        return ""

    def _start(self, started: MessageStarted, step_id: str) -> None:
        self._steps[started.message_id] = step_id
        if is_assistant(started.role):
            self._silent.discard(started.message_id)
        else:
            self._silent.add(started.message_id)

    def _delta(self, delta: event_pb2.TextDelta, event: Event) -> str:
        message_id, text = delta.message_id, delta.text
        if message_id == self._speaking:
            self._said.append(text)
            return text
        if message_id in self._silent:
            return ""
        chunks = self._messages.get(message_id)
        if chunks is None:
            chunks = self._messages[message_id] = []
            self._steps.setdefault(message_id, event.step_id)
        chunks.append(text)
        self._speaking, self._said = message_id, chunks
        return text

    def _finish(self, finished: MessageFinished, step_id: str) -> str:
        message_id = finished.message_id
        if message_id in self._silent or not is_assistant(finished.role):
            return ""
        whole = text_of(finished)
        shown = message_id in self._messages
        self._messages[message_id] = [whole]
        self._steps.setdefault(message_id, step_id)
        return "" if shown else whole

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


class ToolCallProjection:
    """Pairs the start and the end of each tool call."""

    def __init__(self) -> None:
        self._open: dict[str, ToolCall] = {}

    def add(self, event: Event) -> ToolCall | None:
        """Take an event; return the call that it completes, if it does."""
        if event.type == "tool_call_started":
            self._open[event.data.call.tool_call_id] = started_call(event)
        elif event.type == "tool_call_finished":
            return finished_call(self._open.pop(event.data.tool_call_id, None), event)
        return None

    def unfinished(self) -> tuple[ToolCall, ...]:
        """Return the calls that were never completed; their outcome is None."""
        return tuple(self._open.values())


def started_call(event: ToolCallStartedEvent) -> ToolCall:
    """Read a call that begins."""
    call = event.data.call
    return ToolCall(
        id=call.tool_call_id,
        name=call.tool_name,
        arguments=call.arguments,
        step_id=event.step_id,
    )


def finished_call(started: ToolCall | None, event: ToolCallFinishedEvent) -> ToolCall:
    """Complete a call by its end. One whose start was not read has no arguments."""
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
