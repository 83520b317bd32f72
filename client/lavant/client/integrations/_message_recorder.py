"""Records one message of a model as it is spoken. Only queues, never waits."""

from typing import Protocol

from lavant.client import LavantError, Usage, _json, _payloads
from lavant.client._ids import new_id
from lavant.client._message import MessageDraft, pieces
from lavant.v1.event_pb2 import Event


class Log(Protocol):
    """Where events go: a run's producer, of either kind."""

    def enqueue(self, event: Event) -> None:
        """Queue an event without ever waiting."""
        ...


class MessageRecorder:
    """Publishes a message from its start, which it does at once, to `finish`.

    Tool calls are parts of it, in the order in which they are first spoken of; `call_id` names them
    apart within the run.
    """

    def __init__(self, log: Log, step_id: str, model: str = "") -> None:
        self._log = log
        self._step_id = step_id
        self._draft = MessageDraft(new_id(), model=model)
        self._calls: dict[str, int] = {}
        self.is_empty = True
        self._enqueue(self._draft.start())

    def text(self, chunk: str) -> None:
        """Publish more of its text."""
        if chunk:
            for piece in pieces(chunk):
                self._make_room(piece)
                self._say(self._draft.text(piece))

    def reasoning(self, chunk: str) -> None:
        """Publish more of its reasoning."""
        if chunk:
            for piece in pieces(chunk):
                self._make_room(piece)
                self._say(self._draft.reasoning(piece))

    def tool_arguments(self, call_id: str, name: str, chunk: object = None) -> None:
        """Publish more of a tool call's arguments: JSON text as it comes, or the whole as a value."""
        self.is_empty = False
        if call_id not in self._calls:
            self._calls[call_id] = self._draft.reserve()
        if chunk:
            text = chunk if isinstance(chunk, str) else _json.encode(_json.bounded(chunk))
            for piece in pieces(text):
                self._enqueue(self._draft.tool_arguments(call_id, name, piece, self._calls[call_id]))

    def tool_call(self, call_id: str, name: str, arguments: object) -> None:
        """Set a tool call whole, once its arguments are known."""
        self.is_empty = False
        part_index = self._calls.pop(call_id) if call_id in self._calls else self._draft.reserve()
        self._draft.fill(part_index, _payloads.recorded_call(call_id, name, arguments))

    def finish(self, finish_reason: str = "", usage: Usage | None = None) -> None:
        """Publish the whole: of a message that was cut off, what there is of it."""
        self._enqueue(self._draft.finish(finish_reason, usage))

    def _make_room(self, chunk: str) -> None:
        # A message that waits for its tool calls to become whole cannot be finished yet.
        if not self._draft.has_room(chunk) and not self._calls:
            self._enqueue(self._draft.finish())
            self._draft.renew(new_id())
            self._enqueue(self._draft.start())

    def _say(self, delta: Event) -> None:
        self.is_empty = False
        try:
            self._enqueue(delta)
        except LavantError:
            self._draft.take_back()
            raise

    def _enqueue(self, event: Event) -> None:
        event.step_id = self._step_id
        self._log.enqueue(event)
