"""Messages that a model is given: the conversation until then, as JSON text."""

import sys
from typing import Any, Final

from lavant.contract.json_values import bounded_text
from lavant.contract.text import to_text
from lavant.server.otlp.attributes import decoded, json_text, written
from lavant.server.otlp.messages import TEXTS

MAX_INPUT_BYTES: Final = 64 << 10  # each request carries the whole conversation


def conversation_json(messages: Any, instructions: Any = None) -> str:
    """Return the messages that a model is given as JSON text: the latest ones, if they have over MAX_INPUT_BYTES.

    The list begins with the instructions as the role "system", if they are separate, and with `{"omitted": 12}` where
    12 messages are left out.
    """
    first = ""
    if instructions is not None:
        content = json_text(instructions, MAX_INPUT_BYTES)
        first = f'{{"role":"system","{"parts" if content.startswith("[") else "content"}":{content}}}'
    whole = json_text(messages, sys.maxsize)
    if len(whole) * 4 <= MAX_INPUT_BYTES or len(whole.encode()) <= MAX_INPUT_BYTES:
        if not first:
            return whole
        inner = whole.strip()[1:-1].strip() if whole.lstrip().startswith("[") else whole
        return f"[{first},{inner}]" if inner else f"[{first}]"
    found = decoded(messages)
    if not isinstance(found, list):
        return bounded_text(whole, MAX_INPUT_BYTES)
    texts: list[str] = []
    size = 0
    for item in reversed(found):
        latest = bounded_text(written(item), MAX_INPUT_BYTES)
        size += len(latest.encode())
        if texts and size > MAX_INPUT_BYTES:
            texts.append(f'{{"omitted":{len(found) - len(texts)}}}')
            break
        texts.append(latest)
    return f"[{','.join([first, *reversed(texts)] if first else reversed(texts))}]"


def last_question(transcript: Any) -> Any:
    """Return the last message of a person in a transcript; None if there is none."""
    for message in reversed(transcript if isinstance(transcript, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            parts = message.get("parts", message.get("content"))
            if not isinstance(parts, list) or any(
                isinstance(part, dict) and part.get("type") == "text" for part in parts
            ):
                return [message]
    return None


def _is_text(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, dict) and to_text(item.get("type")) in TEXTS)
