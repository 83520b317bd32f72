"""JSON text, the form in which values travel."""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

# The largest value that a recorder publishes whole: two of them fit into an event.
LARGE = 448 << 10
HEAD = 1_000


def encode(value: object, *, fallback: Callable[[Any], str] | None = None) -> str:
    """Return a value's JSON text; pydantic models, dataclasses and dates included.

    What JSON cannot say is written as `fallback` has it, else as its repr; NaN and infinities as null, unpaired
    surrogates as U+FFFD. Raises ValueError for a value that contains itself.
    """
    write = fallback or _repr
    try:
        return to_json(value, fallback=write, inf_nan_mode="null", bytes_mode="base64").decode()
    except ValueError as error:
        if "surrogates not allowed" not in str(error):
            raise
    return to_json(_valid(value), fallback=write, inf_nan_mode="null", bytes_mode="base64").decode()


def encode_optional(value: object) -> str:
    """Return a value's JSON text, and nothing for None."""
    return "" if value is None else encode(value)


def bounded(value: object) -> object:
    """Return a value for `encode`, for those who must not fail: one that is too large or cyclic, as its beginning."""
    try:
        text = encode(value)
    except ValueError:
        text = encode(_repr(value))
        value = _repr(value)
    return value if (size := len(text.encode())) <= LARGE else _beginning(text, size)


def bounded_text(text: str, limit: int = LARGE) -> str:
    """Return JSON text, or if it is larger than `limit` bytes, JSON that tells its size and its beginning."""
    return text if (size := len(text.encode())) <= limit else encode(_beginning(text, size))


def valid_text(text: str) -> str:
    """Return text that UTF-8 can say: unpaired surrogates become U+FFFD. Raises TypeError if it is no text."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def checked(text: str) -> str:
    """Return JSON text as it is, and text that is none as a JSON string: a model's arguments may be malformed."""
    text = valid_text(text)
    try:
        json.loads(text)
    except ValueError:
        return encode(text)
    return text


def decode(text: str) -> Any:
    """Return what a JSON text says: None for nothing, the text itself if it is not JSON."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _beginning(text: str, size: int) -> dict[str, object]:
    return {"truncated": True, "bytes": size, "head": text[:HEAD]}


def _repr(value: object) -> str:
    try:
        return valid_text(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, BaseModel):
        return _valid(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _valid(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_valid(item) for item in value]
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return value
