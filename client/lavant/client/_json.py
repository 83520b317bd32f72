"""JSON text, the form in which values travel."""

import json
from typing import Any

from pydantic_core import to_json

from lavant.client._snapshot import NESTED, TRUNCATED, describe, snapshot
from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.contract.text import to_text
from lavant.contract.values import is_json

HEAD = 1_000


def encode(value: object, limit: int = MAX_VALUE_BYTES) -> str:
    """Return the JSON text of any value as it is now, of at most about `limit` bytes.

    Never raises, and leaves the value alone: `lavant.client._snapshot.snapshot` says what becomes of values that
    are no JSON. NaN and infinities are null, unpaired surrogates U+FFFD, bytes Base64. A value that is too large is
    replaced by its size, where it is known, and the beginning of its text:
    `{"truncated": true, "bytes": 3000002, "head": "..."}`.
    """
    return encode_flawed(value, limit)[0]


def encode_flawed(value: object, limit: int = MAX_VALUE_BYTES) -> tuple[str, str]:
    """Return what `encode` does, and what the text lacks of the value, in words; empty if nothing."""
    copied, flaw = snapshot(value)
    try:
        text = to_json(copied, inf_nan_mode="null").decode()
    except Exception:
        return to_json(describe(value)).decode(), NESTED
    if flaw == TRUNCATED:
        return _beginning(text, None), flaw
    # Few texts come near the limit: only those are worth encoding to know their size.
    size = len(text.encode()) if len(text) * 4 > limit else 0
    return (text, flaw) if size <= limit else (_beginning(text, size), TRUNCATED)


def encode_optional(value: object) -> str:
    """Return a value's JSON text, and nothing for None."""
    return "" if value is None else encode(value)


def bounded_text(text: str, limit: int = MAX_VALUE_BYTES) -> str:
    """Return JSON text, or if it is larger than `limit` bytes, JSON that tells its size and its beginning."""
    return text if (size := len(text.encode())) <= limit else _beginning(text, size)


def checked(text: object) -> str:
    """Return JSON text as it is, and text that is none as a JSON string: a model's arguments may be malformed."""
    text = to_text(text)
    return text if is_json(text) else encode(text)


def decode(text: str) -> Any:
    """Return what a JSON text says: None for nothing, the text itself if it is not JSON."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _beginning(text: str, size: int | None) -> str:
    known = {} if size is None else {"bytes": size}
    return to_json({"truncated": True, **known, "head": text[:HEAD]}).decode()
