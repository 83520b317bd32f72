"""Records one message of a model while it is generated. Only queues, never waits."""

from collections.abc import Iterable
from typing import Literal, Protocol

from lavant.client import LavantError, Usage, _json, _payloads
from lavant.client._ids import new_id
from lavant.client._message import MessageDraft, pieces
from lavant.contract.text import to_text
from lavant.v1.event_pb2 import Event

Kind = Literal["text", "reasoning"]
_KINDS: tuple[Kind, Kind] = ("text", "reasoning")
_HIGH_SURROGATES = ("\ud800", "\udbff")


class Log(Protocol):
    """Where events go: a run's producer, of either kind."""

    def enqueue(self, event: Event) -> None:
        """Queue an event without ever waiting."""
        ...


class _OpenCall:
    """A tool call whose arguments are not whole yet."""

    __slots__ = ("arguments", "name", "part_index")

    def __init__(self, name: str, part_index: int) -> None:
        self.name = name
        self.part_index = part_index
        self.arguments: list[str] = []


class MessageRecorder:
    """Publishes a message from its start, which it does at once, to `finish`.

    Tool calls are parts of it, in the order in which they begin; `call_id` identifies them within the run. Text that
    is not a `str` is left out. The text is the same however it was cut into chunks, also between two surrogates.
    """

    def __init__(self, log: Log, step_id: str, model: str = "") -> None:
        self._log = log
        self._step_id = step_id
        self._draft = MessageDraft(new_id(), model=model)
        self._calls: dict[str, _OpenCall] = {}
        self._said: dict[Kind, list[str]] = {"text": [], "reasoning": []}
        self._half: tuple[Kind, str] | None = None
        self.is_empty = True
        self._enqueue(self._draft.start())

    def text(self, chunk: object) -> None:
        """Publish more of its text."""
        self._add("text", chunk)

    def reasoning(self, chunk: object) -> None:
        """Publish more of its reasoning."""
        self._add("reasoning", chunk)

    def complete(self, whole: Iterable[tuple[Kind, str]]) -> None:
        """Publish what a whole message has beyond what was streamed of it; where the two differ, the stream counts."""
        said = list(whole)
        skip = {kind: self._streamed_length(kind, said) for kind in _KINDS}
        for kind, text in said:
            self._add(kind, text[skip[kind] :])
            skip[kind] -= min(skip[kind], len(text))

    def tool_arguments(self, call_id: str, name: object, chunk: object = None) -> None:
        """Publish more of a tool call's arguments: JSON text as it comes, or the whole as a value."""
        self.is_empty = False
        self._end_half()
        if (call := self._calls.get(call_id)) is None:
            call = self._calls[call_id] = _OpenCall("", self._draft.reserve())
        call.name = to_text(name) or call.name
        if chunk is None:
            return
        text = to_text(chunk) if isinstance(chunk, str) else _json.encode(chunk)
        call.arguments.append(text)
        for piece in pieces(text) if text else ():
            self._enqueue(self._draft.tool_arguments(call_id, call.name, piece, call.part_index))

    def tool_call(self, call_id: str, name: object, arguments: object, original_id: object = None) -> None:
        """Set a tool call whole, once its arguments are known."""
        self.is_empty = False
        self._end_half()
        call = self._calls.pop(call_id, None)
        part_index = call.part_index if call else self._draft.reserve()
        self._draft.fill(part_index, _payloads.tool_call(call_id, name, arguments, original_id=original_id))

    def finish(self, finish_reason: str = "", usage: Usage | None = None) -> None:
        """Publish the whole: of a message that was cut off, what there is of it."""
        self._end_half()
        for call_id, call in list(self._calls.items()):
            self.tool_call(call_id, call.name, "".join(call.arguments) or None)
        self._enqueue(self._draft.finish(finish_reason, usage))

    def _add(self, kind: Kind, chunk: object) -> None:
        if not issubclass(type(chunk), str):
            return
        text = str.__str__(chunk)
        self._said[kind].append(text)
        if self._half is not None and self._half[0] == kind:
            text, self._half = self._half[1] + text, None
        if text and _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]:
            self._end_half()
            text, self._half = text[:-1], (kind, text[-1])
        if text:
            self._end_half(unless=kind)
            self._publish(kind, text)

    def _end_half(self, unless: Kind | None = None) -> None:
        """Publish the first half of a pair whose second half does not come next."""
        if self._half is not None and self._half[0] != unless:
            (kind, half), self._half = self._half, None
            self._publish(kind, half)

    def _publish(self, kind: Kind, text: str) -> None:
        self.is_empty = False
        for piece in pieces(text):
            self._make_room(piece)
            delta = self._draft.text(piece) if kind == "text" else self._draft.reasoning(piece)
            try:
                self._enqueue(delta)
            except LavantError:
                self._draft.take_back()
                raise

    def _make_room(self, chunk: str) -> None:
        # A message that waits for its tool calls to become whole cannot be finished yet.
        if not self._draft.has_room(chunk) and not self._calls:
            self._enqueue(self._draft.finish())
            self._draft.renew(new_id())
            self._enqueue(self._draft.start())

    def _streamed_length(self, kind: Kind, whole: list[tuple[Kind, str]]) -> int:
        said, text = "".join(self._said[kind]), "".join(part for of, part in whole if of == kind)
        return len(said) if text.startswith(said) else len(text)

    def _enqueue(self, event: Event) -> None:
        event.step_id = self._step_id
        self._log.enqueue(event)
