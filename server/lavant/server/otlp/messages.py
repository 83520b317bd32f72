"""Messages of models in the shapes that libraries write them, as parts of the contract's messages."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from lavant.contract.json_values import bounded_text
from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.contract.text import to_id, to_name, to_text
from lavant.server.otlp.attributes import decoded, json_text, text
from lavant.v1.event_pb2 import MessagePart, Role, ToolCall

MAX_MESSAGES: Final = 128  # of one request; a model writes one for each choice
_MAX_PARTS: Final = 1_000
_MAX_ORIGINAL_ID: Final = 1_024

_ASSISTANT: Final = "assistant"
ROLES: Final[Mapping[str, "Role.ValueType"]] = {
    _ASSISTANT: Role.ROLE_ASSISTANT,
    "model": Role.ROLE_ASSISTANT,
    "ai": Role.ROLE_ASSISTANT,
    "user": Role.ROLE_USER,
    "human": Role.ROLE_USER,
    "system": Role.ROLE_SYSTEM,
    "developer": Role.ROLE_SYSTEM,
    "tool": Role.ROLE_TOOL,
    "function": Role.ROLE_TOOL,
}
# Types of parts, by what they become. Of each, the names of its entries, in order of preference.
TEXTS: Final = frozenset({"text", "output_text", "input_text", "refusal"})
_TEXT: Final = ("content", "text", "refusal")
_REASONINGS: Final = frozenset({"reasoning", "thinking", "reasoningContent"})
_REASONING: Final = ("content", "thinking", "reasoning", "text", "summary", "reasoningText")
_CALLS: Final = frozenset(
    {"tool_call", "tool-call", "tool_use", "function", "function_call", "toolUse", "functionCall"}
)
_CALL_ID: Final = ("id", "call_id", "toolCallId", "tool_call_id", "toolUseId")
_CALL_NAME: Final = ("name", "toolName", "tool_name")
_CALL_ARGUMENTS: Final = ("arguments", "input", "args")
# Where a message has its parts, and a message's further entries that are parts of a kind.
_PARTS: Final = ("parts", "content", "contents")
_INNER: Final = ("message", "content")  # where a choice has its message
_REASONING_OF_MESSAGE: Final = ("reasoning", "reasoning_content", "thinking")


class MessageReading(NamedTuple):
    """A message that a model wrote."""

    role: "Role.ValueType"
    parts: tuple[MessagePart, ...]
    finish_reason: str


def read_messages(value: Any, owner: str, finish_reasons: Any = None) -> tuple[MessageReading, ...]:
    """Return the messages of a value: text, JSON text, or what is decoded from it. What is no message is left out.

    Tool calls without an id have one made of `owner`, an id of the work, and their number. All parts together have at
    most about MAX_VALUE_BYTES.
    """
    found = decoded(value)
    items = found if isinstance(found, list) else [found]
    if isinstance(found, list) and found and all(_is_part(item) for item in found):
        items = [{"parts": found}]  # parts of one message, in no message
    reasons = decoded(finish_reasons)
    reasons = reasons if isinstance(reasons, list) else [reasons]
    writer = _Writer(owner)
    messages = []
    for number, item in enumerate(items[:MAX_MESSAGES]):
        reason = reasons[min(number, len(reasons) - 1)] if reasons else None
        if (message := _message(item, writer, reason)) is not None:
            messages.append(message)
    return tuple(messages)


def call_of(call_id: Any, name: Any, arguments: Any, owner: str) -> ToolCall:
    """Return a tool call, with an id that the contract allows: `owner` if there is none."""
    original = text(call_id) if call_id is not None else ""
    allowed = to_id(original) or owner
    return ToolCall(
        tool_call_id=allowed,
        tool_name=to_name(text(name)) if name is not None else "",
        arguments_json=json_text(arguments),
        original_id=original[:_MAX_ORIGINAL_ID] if original != allowed else "",
    )


class _Writer:
    """Makes parts, as long as they fit into one event."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._left = MAX_VALUE_BYTES
        self._calls = 0

    def text(self, value: Any) -> MessagePart | None:
        cut = self._cut(value)
        return MessagePart(text=cut) if cut else None

    def reasoning(self, value: Any) -> MessagePart | None:
        cut = self._cut(value)
        return MessagePart(reasoning=cut) if cut else None

    def call(self, holder: Mapping[str, Any]) -> MessagePart:
        inner = holder.get("function")
        holders = (holder, inner) if isinstance(inner, dict) else (holder,)
        self._calls += 1
        call_id, name, arguments = (_first(holders, names) for names in (_CALL_ID, _CALL_NAME, _CALL_ARGUMENTS))
        call = call_of(call_id, name, arguments, to_id(f"{self._owner}.{self._calls}"))
        call.arguments_json = bounded_text(call.arguments_json, self._left)
        self._left -= call.ByteSize()
        return MessagePart(tool_call=call)

    @property
    def is_full(self) -> bool:
        """Whether no more parts fit."""
        return self._left <= 0

    def _cut(self, value: Any) -> str:
        whole = text(value) if value is not None else ""
        size = len(whole) if whole.isascii() else len(whole.encode())
        if size > self._left:
            whole = whole.encode()[: max(0, self._left)].decode(errors="ignore")
        self._left -= size
        return whole


def _message(item: Any, writer: _Writer, reason: Any) -> MessageReading | None:
    if isinstance(item, str):
        part = writer.text(item)
        return MessageReading(ROLES[_ASSISTANT], (part,), _reason(reason)) if part else None
    if not isinstance(item, dict):
        return None
    if _is_part(item):  # as OpenAI's Responses have calls of tools beside messages
        item = {"parts": [item]}
    reason = item.get("finish_reason") or reason
    for name in _INNER:
        if isinstance(inner := item.get(name), dict):
            item = inner
    parts = []
    for part in _parts(item, writer):
        if part is not None:
            parts.append(part)
        if writer.is_full or len(parts) == _MAX_PARTS:
            break
    role = ROLES.get(to_text(item.get("role")).lower(), ROLES[_ASSISTANT])
    return MessageReading(role, tuple(parts), _reason(reason)) if parts or reason else None


def _parts(message: Mapping[str, Any], writer: _Writer) -> Iterator[MessagePart | None]:
    for name in _REASONING_OF_MESSAGE:
        if isinstance(value := message.get(name), str):
            yield writer.reasoning(value)
            break
    for name in _PARTS:
        if not (value := message.get(name)):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                yield writer.text(item)
            elif isinstance(item, dict):
                yield _part(item, writer)
        break  # some libraries write the same parts under two names
    calls = message.get("tool_calls")
    for item in calls if isinstance(calls, list) else []:
        if isinstance(item, dict):
            yield writer.call(item)


def _part(item: Mapping[str, Any], writer: _Writer) -> MessagePart | None:
    """Return a part of a message; None for what is no part of those that the contract has, such as an image."""
    kind = item.get("type")
    if not isinstance(kind, str):  # as Google and Amazon write parts: one entry, whose name is the type
        kind, inner = next(iter(item.items()), ("", None))
        if isinstance(inner, dict):
            item = inner
    if kind in TEXTS:
        return writer.text(_first((item,), _TEXT))
    if kind in _REASONINGS:
        return writer.reasoning(_reasoning(_first((item,), _REASONING)))
    return writer.call(item) if kind in _CALLS else None


def _reasoning(value: Any) -> Any:
    """Return the text of reasoning that is a list of summaries, or wrapped."""
    if isinstance(value, dict):
        return _first((value,), _TEXT)
    if isinstance(value, list):
        return "\n\n".join(text(_reasoning(item) or "") for item in value if isinstance(item, dict | str))
    return value


def _is_part(item: Any) -> bool:
    """Return whether an item is a part by its type, outside of any message."""
    if not isinstance(item, dict) or "role" in item or "parts" in item:
        return False
    kind = item.get("type")
    return isinstance(kind, str) and (kind in _CALLS or kind in _REASONINGS or kind in TEXTS)


def _first(holders: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> Any:
    for holder in holders:
        for name in names:
            if (value := holder.get(name)) is not None:
                return value
    return None


def _reason(value: Any) -> str:
    return to_name(text(value)) if value is not None else ""
