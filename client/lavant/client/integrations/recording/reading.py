"""Reads what frameworks report, of whatever shape: what is absent, odd or wrong counts as nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lavant.client._wire import json_text as _json

_Message = TypeVar("_Message")
_MAX_COUNT = 1 << 53

# Every request of an agent carries the whole conversation, so its record holds the end of it.
MAX_INPUT_BYTES = 64 << 10


def count(value: object) -> int:
    """Return a number of tokens; 0 for a value that is none."""
    kind = type(value)  # not isinstance, which asks the value for its __class__: a lazy proxy would load
    if kind is float and 0 <= value < _MAX_COUNT:  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload, no-any-return]
    return value if kind is int and 0 <= value < _MAX_COUNT else 0  # type: ignore[operator, return-value]


def field(holder: object, *names: str) -> object:
    """Return the first of these entries of a dict, or attributes of an object, that is there and not None."""
    for name in names:
        try:
            value = holder.get(name) if issubclass(type(holder), dict) else getattr(holder, name, None)  # type: ignore[attr-defined]
        except Exception:
            value = None
        if value is not None:
            return value
    return None


def fields(holder: object, *names: str) -> Iterator[object]:
    """Return each of these entries of a dict, or attributes of an object; None for one that is absent."""
    return (field(holder, name) for name in names)


def items(holder: object, *names: str) -> Iterator[object]:
    """Return the items of the lists under these names of a dict or an object; what is no list has none."""
    for name in names:
        found = field(holder, name)
        if issubclass(type(found), list):
            yield from list.__iter__(found)  # type: ignore[arg-type]


def conversation_json(
    messages: Sequence[_Message],
    describe: Callable[[_Message], Iterable[Mapping[str, Any]]],
    instructions: object = None,
) -> str:
    """Return the messages that a model is given, as the JSON text of a list: the latest ones, if they are many or long.

    `describe` makes entries of each message, such as `{"role": "user", "content": ...}`. The list begins with
    `{"omitted": 12}` where 12 messages are left out, before them with the instructions as the role "system".
    """
    texts: list[str] = []
    size = 0
    for message in reversed(messages):
        text = ",".join(_json.encode(part, MAX_INPUT_BYTES) for part in describe(message))
        size += len(text)
        if texts and size > MAX_INPUT_BYTES:
            texts.append(_json.encode({"omitted": len(messages) - len(texts)}))
            break
        texts.append(text)
    if instructions is not None:
        texts.append(_json.encode({"role": "system", "content": instructions}, MAX_INPUT_BYTES))
    return f"[{','.join(text for text in reversed(texts) if text)}]"
