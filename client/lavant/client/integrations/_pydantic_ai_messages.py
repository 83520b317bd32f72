"""Messages of pydantic-ai as the inputs and outputs of steps: what was said, by whom, in a form that JSON has."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse

from lavant.client import _json

# Every request of an agent carries the whole conversation, so its record holds the end of it.
MAX_INPUT_BYTES = 64 << 10

_ROLES = {"system-prompt": "system", "user-prompt": "user", "text": "assistant", "thinking": "assistant"}
_CALLS = frozenset({"tool-call", "builtin-tool-call"})
_RETURNS = frozenset({"tool-return", "builtin-tool-return", "retry-prompt"})


def asked(messages: Sequence[ModelMessage]) -> str:
    """Return the JSON text of the messages that a model is asked with: the latest ones, if they are many or long.

    A list of `{"role": "user", "content": ...}`; it begins with `{"omitted": 12}` where 12 messages are left out,
    and with the instructions as the role "system".
    """
    texts: list[str] = []
    size = 0
    for message in reversed(messages):
        text = ",".join(_json.encode(part, MAX_INPUT_BYTES) for part in _described(message))
        size += len(text)
        if texts and size > MAX_INPUT_BYTES:
            texts.append(_json.encode({"omitted": len(messages) - len(texts)}))
            break
        texts.append(text)
    instructions = getattr(messages[-1], "instructions", None) if messages else None
    if isinstance(instructions, str):
        texts.append(_json.encode({"role": "system", "content": instructions}))
    return f"[{','.join(text for text in reversed(texts) if text)}]"


def answered(response: ModelResponse) -> list[dict[str, Any]]:
    """Return what a model answered, as a list of `{"role": "assistant", "content": ...}`."""
    return list(_described(response))


def _described(message: ModelMessage) -> Iterator[dict[str, Any]]:
    for part in message.parts:
        kind = getattr(part, "part_kind", "")
        if kind in _CALLS:
            yield {
                "role": "assistant",
                "tool_call": getattr(part, "tool_name", None),
                "arguments": getattr(part, "args", None),
                "tool_call_id": getattr(part, "tool_call_id", None),
            }
        elif kind in _RETURNS:
            yield {
                "role": "tool",
                "tool_name": getattr(part, "tool_name", None),
                "content": getattr(part, "content", None),
                "tool_call_id": getattr(part, "tool_call_id", None),
            }
        elif kind in _ROLES:
            said = "reasoning" if kind == "thinking" else "content"
            yield {"role": _ROLES[kind], said: getattr(part, "content", None)}
        else:
            yield {"role": "other", "kind": kind, "content": part}
