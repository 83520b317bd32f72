"""What readers make of events: text, and tool calls with their results. Pure."""

from lavant.client import _json
from lavant.client._events import Event
from lavant.client._models import ErrorInfo, ToolCall
from lavant.client._states import outcome_of
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import Role


class TextProjection:
    """Collects what a run's assistants say, message by message.

    `add` returns the text to show next. A message without deltas gives its text when it is whole.
    When a step is tried again, what its earlier attempts said is dropped from `text`; what was
    shown of it is shown.
    """

    def __init__(self) -> None:
        self._messages: dict[str, list[str]] = {}
        self._steps: dict[str, str] = {}
        self._others: set[str] = set()

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join("".join(chunks) for chunks in self._messages.values())

    def add(self, event: Event) -> str:
        """Take an event; return the text that it adds."""
        match event.type:
            case "text_delta":
                return self._delta(event.data)
            case "message_started":
                self._start(event.data, event.step_id)
            case "message_finished":
                return self._finish(event.data)
            case "step_started" if event.data.attempt > 1:
                self._drop(event.data.step_id)
        return ""

    def _start(self, started: event_pb2.MessageStarted, step_id: str) -> None:
        self._steps[started.message_id] = step_id
        if started.role not in (Role.ROLE_ASSISTANT, Role.ROLE_UNSPECIFIED):
            self._others.add(started.message_id)

    def _delta(self, delta: event_pb2.TextDelta) -> str:
        if delta.message_id in self._others:
            return ""
        self._messages.setdefault(delta.message_id, []).append(delta.text)
        return delta.text

    def _finish(self, finished: event_pb2.MessageFinished) -> str:
        if finished.role not in (Role.ROLE_ASSISTANT, Role.ROLE_UNSPECIFIED):
            return ""
        whole = "".join(part.text for part in finished.parts)
        shown = finished.message_id in self._messages
        self._messages[finished.message_id] = [whole]
        return "" if shown else whole

    def _drop(self, step_id: str) -> None:
        for message_id in [m for m, step in self._steps.items() if step == step_id]:
            self._messages.pop(message_id, None)


class ToolCallProjection:
    """Pairs the start and the end of each tool call."""

    def __init__(self) -> None:
        self._open: dict[str, ToolCall] = {}

    def add(self, event: Event) -> ToolCall | None:
        """Take an event; return the call that it completes, if it does."""
        if event.type == "tool_call_started":
            call = event.data.call
            self._open[call.tool_call_id] = ToolCall(
                id=call.tool_call_id,
                name=call.tool_name,
                arguments=_json.decode(call.arguments_json),
                step_id=event.step_id,
            )
        elif event.type == "tool_call_finished":
            return self._close(event.data)
        return None

    def unfinished(self) -> tuple[ToolCall, ...]:
        """Return the calls that were never completed; their outcome is None."""
        return tuple(self._open.values())

    def _close(self, finished: event_pb2.ToolCallFinished) -> ToolCall:
        unseen = ToolCall(id=finished.tool_call_id, name=finished.tool_name, arguments=None)
        call = self._open.pop(finished.tool_call_id, unseen)
        return call.model_copy(
            update={
                "result": _json.decode(finished.result_json),
                "outcome": outcome_of(finished.outcome),
                "error": ErrorInfo.from_proto(finished.error) if finished.HasField("error") else None,
            }
        )
