"""A model's answer as one message of a step, while it is generated: text, reasoning, tool calls. Only queues."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from lavant.client import LavantError, Usage
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.guard import Guard
from lavant.client._publishing.payloads import MessageDraft, pieces
from lavant.client._wire import json_text as _json
from lavant.client._wire.ids import new_id
from lavant.client.integrations.recording.runs import EventLog
from lavant.contract.text import to_id, to_text
from lavant.contract.values import is_json
from lavant.v1.event_pb2 import Event

Kind = Literal["text", "reasoning"]
_KINDS: tuple[Kind, Kind] = ("text", "reasoning")
_HIGH_SURROGATES = ("\ud800", "\udbff")


class ToolCallIds:
    """Maps a provider's ids of tool calls to ids that are valid and unique within the run.

    `step_id` is the agent's step; the calls of a nested agent get its last characters as a prefix, since two
    agents may number their calls alike. A provider may also use one id twice, or none.

    Example:
        ids = ToolCallIds("")
        for call_id in (ids.new("call-1"), ids.new("call-1")):
            ids.expect("call-1", call_id)
        assert [ids.take("call-1"), ids.take("call-1")] == ["call-1", "call-1~2"]
    """

    def __init__(self, step_id: str) -> None:
        self._prefix = f"{step_id[-12:]}." if step_id else ""
        self._used: set[str] = set()
        self._expected: dict[str, deque[str]] = {}

    def new(self, original_id: object) -> str:
        """Return a new id for a call."""
        base = f"{self._prefix}{to_text(original_id) or 'call'}"
        call_id, count = to_id(base), 1
        while call_id in self._used:
            count += 1
            call_id = to_id(f"{base}~{count}")
        self._used.add(call_id)
        return call_id

    def expect(self, original_id: object, call_id: str) -> None:
        """Expect the execution of a call under the provider's id, which may become known only while it streams."""
        self._expected.setdefault(to_text(original_id), deque()).append(call_id)

    def take(self, original_id: object) -> str:
        """Return the id of the call that is executed or answered now; a new one for a call that no model made."""
        expected = self._expected.get(to_text(original_id))
        return expected.popleft() if expected else self.new(original_id)

    def forget_expected(self) -> None:
        """Expect no call any more: the next request is made, so a call that was not executed by now never is."""
        self._expected.clear()


@dataclass(slots=True, eq=False)
class _OpenCall:
    """A tool call whose arguments are not complete yet."""

    part_index: int
    original_id: object
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class MessageRecorder:
    """Publishes an assistant's message from its start, at once, to `finish`.

    Tool calls are parts of it, in the order in which they start; `call_id` identifies them within the run. Text that
    is not a `str` is left out. The text is the same however it was cut into chunks, also between two surrogates.
    """

    def __init__(self, log: EventLog, step_id: str, model: str = "") -> None:
        self._log = log
        self._step_id = step_id
        self._draft = MessageDraft(new_id(), model=model)
        self._calls: dict[str, _OpenCall] = {}
        self._complete_calls: set[str] = set()
        self._streamed: dict[Kind, list[str]] = {"text": [], "reasoning": []}
        self._half: tuple[Kind, str] | None = None
        self.is_empty = True
        self._enqueue(self._draft.start())

    def add(self, kind: Kind, chunk: object) -> None:
        """Publish more of its text or its reasoning."""
        if not issubclass(type(chunk), str):
            return
        text = str.__str__(chunk)
        self._streamed[kind].append(text)
        if self._half is not None and self._half[0] == kind:
            text, self._half = self._half[1] + text, None
        if text and _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]:
            self._end_half()
            text, self._half = text[:-1], (kind, text[-1])
        if text:
            self._end_half(unless=kind)
            self._publish(kind, text)

    def complete(self, content: Iterable[tuple[Kind, str]]) -> None:
        """Publish what a whole message has beyond what was streamed of it; where the two differ, the stream counts."""
        whole = list(content)
        skip = {kind: self._streamed_length(kind, whole) for kind in _KINDS}
        for kind, text in whole:
            self.add(kind, text[skip[kind] :])
            skip[kind] -= min(skip[kind], len(text))

    def add_arguments(self, call_id: str, name: object, chunk: object = None, original_id: object = None) -> None:
        """Publish more of a tool call's arguments: JSON text as it comes, or the whole as a value."""
        self.is_empty = False
        self._end_half()
        if (call := self._calls.get(call_id)) is None:
            call = self._calls[call_id] = _OpenCall(self._draft.reserve(), original_id)
        call.name = to_text(name) or call.name
        if chunk is None:
            return
        text = to_text(chunk) if isinstance(chunk, str) else _json.encode(chunk)
        call.arguments.append(text)
        for piece in pieces(text) if text else ():
            self._enqueue(self._draft.tool_arguments(call_id, call.name, piece, call.part_index))

    def set_call(self, call_id: str, name: object, arguments: object, original_id: object = None) -> None:
        """Set a tool call, once its arguments are complete. A second call for one id does nothing."""
        if call_id in self._complete_calls:
            return
        self.is_empty = False
        self._complete_calls.add(call_id)
        self._end_half()
        call = self._calls.pop(call_id, None)
        part_index = call.part_index if call else self._draft.reserve()
        self._draft.fill(part_index, _payloads.tool_call(call_id, name, arguments, original_id=original_id))

    def finish(self, finish_reason: str = "", usage: Usage | None = None) -> None:
        """Publish the whole: of a message that was cut off, what there is of it."""
        self._end_half()
        for call_id, call in list(self._calls.items()):
            self.set_call(call_id, call.name, "".join(call.arguments) or None, call.original_id)
        self._enqueue(self._draft.finish(finish_reason, usage))

    def _end_half(self, unless: Kind | None = None) -> None:
        """Publish the first half of a surrogate pair whose second half does not come next."""
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
        if self._draft.fits(chunk):
            return
        for call_id, call in list(self._calls.items()):
            # The beginning of an object is never an object, but that of a number is a number.
            if (text := "".join(call.arguments)).startswith("{") and is_json(text):
                self.set_call(call_id, call.name, text, call.original_id)
        # A message whose tool calls are not complete cannot be finished yet, so it cannot be continued in another one.
        if not self._calls:
            self._enqueue(self._draft.finish())
            self._draft.renew(new_id())
            self._enqueue(self._draft.start())

    def _streamed_length(self, kind: Kind, whole: list[tuple[Kind, str]]) -> int:
        streamed, text = "".join(self._streamed[kind]), "".join(part for of, part in whole if of == kind)
        return len(streamed) if text.startswith(streamed) else len(text)

    def _enqueue(self, event: Event) -> None:
        event.step_id = self._step_id
        self._log.enqueue(event)


@dataclass(slots=True, eq=False)
class AnswerCall:
    """A tool call of an answer.

    `original_id` is the model's id for it, which may be empty or another call's too; `id` is unique within the run.
    """

    original_id: str
    id: str
    name: str
    arguments: object = None
    is_complete: bool = False


class AnswerRecorder:
    """Publishes a model's answer as one message: streamed, whole, or whole after a part of it was streamed.

    What was streamed is not repeated, and what comes after `finish` is left out. What of an answer cannot be recorded
    is lost alone: the message finishes in any case. `calls` are its tool calls.
    """

    def __init__(self, message: MessageRecorder, ids: ToolCallIds, guard: Guard) -> None:
        self.calls: list[AnswerCall] = []
        self.is_finished = False
        self._message = message
        self._ids = ids
        self._guard = guard
        self._by_index: dict[str, AnswerCall] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it has been recorded."""
        return self._message.is_empty

    def add(self, kind: Kind, chunk: object) -> None:
        """Publish more of its text or its reasoning."""
        if not self.is_finished:
            self._message.add(kind, chunk)

    def add_arguments(self, index: object, original_id: object, name: object, chunk: object) -> None:
        """Publish more of the arguments of the call at an index of the answer."""
        if self.is_finished:
            return
        at, original_id, name = to_text(index), to_text(original_id), to_text(name)
        call = self._by_index.get(at)
        # Some providers repeat the id in each chunk, others have no index and send whole calls.
        if call is None or (original_id and original_id != call.original_id) or (name and not at):
            call = self._by_index[at] = self._new_call(original_id, name)
        call.name = name or call.name
        self._message.add_arguments(call.id, call.name, chunk, call.original_id or None)

    def has_call(self, index: object) -> bool:
        """Return whether a call was streamed at an index of the answer."""
        return to_text(index) in self._by_index

    def finish(
        self,
        content: Iterable[tuple[Kind, str]] = (),
        calls: Iterable[Iterable[object]] = (),
        finish_reason: str = "error",
        usage: Usage | None = None,
    ) -> None:
        """Publish the whole; by default that of an answer that broke off. Each call is (original id, name, arguments).

        A second call does nothing.
        """
        if self.is_finished:
            return
        self.is_finished = True
        with self._guard:
            self._message.complete(content)
        with self._guard:
            for original_id, name, arguments in calls:
                with self._guard:
                    self._set_call(to_text(original_id), to_text(name), arguments)
        with self._guard:
            self._message.finish(finish_reason, usage)

    def _set_call(self, original_id: str, name: str, arguments: object) -> None:
        """Set a complete call: the next one of those streamed under this id, else a new one."""
        streamed = (call for call in self.calls if not call.is_complete and call.original_id == original_id)
        call = next(streamed, None) or self._new_call(original_id, name)
        call.is_complete, call.name, call.arguments = True, name, arguments
        self._message.set_call(call.id, name, arguments, original_id or None)

    def _new_call(self, original_id: str, name: str) -> AnswerCall:
        call = AnswerCall(original_id, self._ids.new(original_id or name), name)
        self.calls.append(call)
        return call
