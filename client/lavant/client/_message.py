"""A message while it is being spoken: makes its events, and remembers the whole."""

from collections.abc import Iterator

from lavant.client import _json
from lavant.client._fitting import Fitting
from lavant.client._models import Usage
from lavant.contract.text import to_id, to_name, to_text
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import Event, MessagePart, Role

# The finish must fit into a batch, at 4 bytes a character.
LONG = 200_000
# What the finish repeats of its tool calls, in bytes; the calls' own events say it all.
LONG_CALLS = 128 << 10


def pieces(chunk: object) -> Iterator[str]:
    """Cut text that is too long for one event; text that is not, even if empty, is one piece."""
    text = to_text(chunk)
    for begin in range(0, max(1, len(text)), LONG):
        yield text[begin : begin + LONG]


class MessageDraft:
    """Gives the events of one message, in order: one start, deltas, one finish.

    Parts are counted from 0; a delta of another kind than the one before begins a new part.
    The finish carries all parts, so a reader that skips deltas loses nothing.
    """

    def __init__(self, message_id: str, role: "Role.ValueType" = Role.ROLE_ASSISTANT, model: str = "") -> None:
        self._role = role
        self._model = to_name(model)
        self.renew(message_id)

    def renew(self, message_id: str) -> None:
        """Begin another message of the same role and model."""
        self.message_id = to_id(message_id)
        self.is_started = False
        self._length = self._calls_size = 0
        self._kind = ""
        self._texts: list[str] = []
        self._parts: list[MessagePart] = []

    def has_room(self, chunk: str) -> bool:
        """Tell whether a chunk can be added without the whole's becoming too large for an event."""
        return not self._length or self._length + len(chunk) <= LONG

    def start(self) -> Event:
        """The message begins."""
        self.is_started = True
        return Event(
            message_started=event_pb2.MessageStarted(message_id=self.message_id, role=self._role, model=self._model)
        )

    def text(self, chunk: object) -> Event:
        """More of its text."""
        chunk = to_text(chunk)
        index = self._extend("text", chunk)
        return Event(text_delta=event_pb2.TextDelta(message_id=self.message_id, part_index=index, text=chunk))

    def reasoning(self, chunk: object) -> Event:
        """More of its reasoning."""
        chunk = to_text(chunk)
        index = self._extend("reasoning", chunk)
        return Event(reasoning_delta=event_pb2.ReasoningDelta(message_id=self.message_id, part_index=index, text=chunk))

    def take_back(self) -> None:
        """Forget the delta of text or reasoning made last: it was not queued."""
        self._length -= len(self._texts.pop())
        if not self._texts:
            self._kind = ""

    def tool_arguments(self, tool_call_id: str, tool_name: str, chunk: str, part_index: int) -> Event:
        """More of a tool call's arguments, as part `part_index`: see `reserve`."""
        return Event(
            tool_arguments_delta=event_pb2.ToolArgumentsDelta(
                message_id=self.message_id,
                part_index=part_index,
                tool_call_id=to_id(tool_call_id),
                tool_name=to_name(tool_name),
                arguments=to_text(chunk),
            )
        )

    def reserve(self) -> int:
        """Begin a part for a tool call, filled by `fill` once its arguments are whole; return its index."""
        self._close_part()
        self._parts.append(MessagePart())
        return len(self._parts) - 1

    def fill(self, part_index: int, call: event_pb2.ToolCall) -> None:
        """Set the call that a reserved part holds; of arguments that are too long, their beginning."""
        filled = self._parts[part_index].tool_call
        filled.CopyFrom(call)
        filled.arguments_json = _json.bounded_text(call.arguments_json, LONG_CALLS - self._calls_size)
        self._calls_size += len(filled.arguments_json)

    def finish(self, finish_reason: str = "", usage: Usage | None = None) -> Event:
        """The message is whole."""
        self._close_part()
        return Event(
            message_finished=event_pb2.MessageFinished(
                message_id=self.message_id,
                role=self._role,
                parts=self._parts,
                finish_reason=to_name(finish_reason),
                usage=Fitting().usage(usage),
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
