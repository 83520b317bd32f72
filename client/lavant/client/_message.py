"""A message while it is being spoken: makes its events, and remembers the whole."""

from lavant.client._models import Usage
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import Event, MessagePart, Role

# The finish must fit into a batch, at 4 bytes a character.
LONG = 200_000


class MessageDraft:
    """Gives the events of one message, in order: one start, deltas, one finish.

    Parts are counted from 0; a delta of another kind than the one before begins a new part.
    The finish carries all parts, so a reader that skips deltas loses nothing.
    """

    def __init__(self, message_id: str, role: "Role.ValueType" = Role.ROLE_ASSISTANT, model: str = "") -> None:
        self.message_id = message_id
        self._role = role
        self._model = model
        self._length = 0
        self._kind = ""
        self._texts: list[str] = []
        self._parts: list[MessagePart] = []

    def has_room(self, chunk: str) -> bool:
        """Tell whether a chunk can be added without the whole's becoming too large for an event."""
        return not self._length or self._length + len(chunk) <= LONG

    def start(self) -> Event:
        """The message begins."""
        return Event(
            message_started=event_pb2.MessageStarted(message_id=self.message_id, role=self._role, model=self._model)
        )

    def text(self, chunk: str) -> Event:
        """More of its text."""
        index = self._extend("text", chunk)
        return Event(text_delta=event_pb2.TextDelta(message_id=self.message_id, part_index=index, text=chunk))

    def reasoning(self, chunk: str) -> Event:
        """More of its reasoning."""
        index = self._extend("reasoning", chunk)
        return Event(reasoning_delta=event_pb2.ReasoningDelta(message_id=self.message_id, part_index=index, text=chunk))

    def tool_arguments(self, tool_call_id: str, tool_name: str, chunk: str, part_index: int) -> Event:
        """More of a tool call's arguments, as part `part_index`: see `reserve`."""
        return Event(
            tool_arguments_delta=event_pb2.ToolArgumentsDelta(
                message_id=self.message_id,
                part_index=part_index,
                tool_call_id=tool_call_id,
                tool_name=tool_name,
                arguments=chunk,
            )
        )

    def reserve(self) -> int:
        """Begin a part for a tool call, filled by `fill` once its arguments are whole; return its index."""
        self._close_part()
        self._parts.append(MessagePart())
        return len(self._parts) - 1

    def fill(self, part_index: int, call: event_pb2.ToolCall) -> None:
        """Set the call that a reserved part holds."""
        self._parts[part_index].tool_call.CopyFrom(call)

    def finish(self, finish_reason: str = "", usage: Usage | None = None) -> Event:
        """The message is whole."""
        self._close_part()
        return Event(
            message_finished=event_pb2.MessageFinished(
                message_id=self.message_id,
                role=self._role,
                parts=self._parts,
                finish_reason=finish_reason,
                usage=usage.to_proto() if usage else None,
            )
        )

    def _extend(self, kind: str, chunk: str) -> int:
        if kind != self._kind:
            self._close_part()
            self._kind = kind
        self._texts.append(chunk)
        self._length += len(chunk)
        return len(self._parts)

    def _close_part(self) -> None:
        if self._kind:
            whole = "".join(self._texts)
            self._parts.append(MessagePart(text=whole) if self._kind == "text" else MessagePart(reasoning=whole))
        self._kind, self._texts = "", []
