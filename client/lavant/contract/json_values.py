"""JSON text of values that must fit into an event."""

from pydantic_core import to_json

from lavant.contract.limits import MAX_VALUE_BYTES

HEAD = 1_000


def bounded_text(text: str, limit: int = MAX_VALUE_BYTES) -> str:
    """Return JSON text, or a JSON object with its size and start if it exceeds `limit` bytes."""
    if len(text) <= limit // 4 or (size := len(text.encode())) <= limit:  # a character has at most four bytes
        return text
    return truncated(text, size)


def truncated(text: str, size: int | None) -> str:
    """Return what stands for a value that is too large: `{"truncated": true, "bytes": 3000002, "head": "..."}`."""
    known = {} if size is None else {"bytes": size}
    return to_json({"truncated": True, **known, "head": text[:HEAD]}).decode()
