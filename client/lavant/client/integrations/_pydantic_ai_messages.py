"""Messages of pydantic-ai as the inputs and outputs of steps: what was said, by whom, in a form that JSON has."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse

from lavant.client.integrations import _conversation

_ROLES = {"system-prompt": "system", "user-prompt": "user", "text": "assistant", "thinking": "assistant"}
_CALLS = frozenset({"tool-call", "builtin-tool-call"})
_RETURNS = frozenset({"tool-return", "builtin-tool-return", "retry-prompt"})


def asked(messages: Sequence[ModelMessage]) -> str:
    """Return the JSON text of the messages that a model is asked with, as `_conversation.asked` does."""
    instructions = getattr(messages[-1], "instructions", None) if messages else None
    return _conversation.asked(messages, _described, instructions if isinstance(instructions, str) else None)


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
