"""The messages that a model is asked with, as the input of its step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lavant.client import _json

_Message = TypeVar("_Message")

# Every request of an agent carries the whole conversation, so its record holds the end of it.
MAX_INPUT_BYTES = 64 << 10


def asked(
    messages: Sequence[_Message],
    describe: Callable[[_Message], Iterable[Mapping[str, Any]]],
    instructions: object = None,
) -> str:
    """Return the JSON text of the messages that a model is asked with: the latest ones, if they are many or long.

    A list of what `describe` makes of each, such as `{"role": "user", "content": ...}`; it begins with
    `{"omitted": 12}` where 12 messages are left out, and with the instructions as the role "system".
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
