"""JSON text of values."""

import json
from typing import Any

from pydantic_core import to_json

from lavant.client._wire.snapshot import NESTED, TRUNCATED, describe, is_plain, snapshot
from lavant.contract.json_values import truncated
from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.contract.text import to_text
from lavant.contract.values import is_json


def encode(value: object, limit: int = MAX_VALUE_BYTES) -> str:
    """Return the JSON text of any value, of at most about `limit` bytes.

    Never raises, and does not change the value: see `lavant.client._wire.snapshot.snapshot` for values without JSON.
    NaN and infinities are null, unpaired surrogates U+FFFD, bytes Base64. A value that is too large is replaced by its
    size, if it is known, and the start of its text: `{"truncated": true, "bytes": 3000002, "head": "..."}`.
    """
    return encode_flawed(value, limit)[0]


def encode_flawed(value: object, limit: int = MAX_VALUE_BYTES) -> tuple[str, str]:
    """Return the text of `encode`, and what it lacks of the value, in words; empty if nothing."""
    if (plain := _plain_text(value, limit)) is not None:
        return plain, ""
    copied, flaw = snapshot(value)
    try:
        text = to_json(copied, inf_nan_mode="null").decode()
    except Exception:
        return to_json(describe(value)).decode(), NESTED
    if flaw == TRUNCATED:
        return truncated(text, None), flaw
    # Few texts come near the limit: only those are worth encoding to know their size.
    size = len(text.encode()) if len(text) * 4 > limit else 0
    return (text, flaw) if size <= limit else (truncated(text, size), TRUNCATED)


def _plain_text(value: object, limit: int) -> str | None:
    """Return the text of a value that is JSON already and fits for certain; None for others."""
    try:
        encoded = to_json(value, inf_nan_mode="null") if is_plain(value) else b""
    except Exception:  # unpaired surrogates, an integer that cannot be printed, another thread that changes the value
        return None
    return encoded.decode() if 0 < len(encoded) <= limit else None


def encode_optional(value: object) -> str:
    """Return the JSON text of a value; empty for None."""
    return "" if value is None else encode(value)


def checked(text: object) -> str:
    """Return JSON text unchanged, and other text as a JSON string: a model's arguments may be malformed."""
    text = to_text(text)
    return text if is_json(text) else encode(text)


def decode(text: str) -> Any:
    """Return the value of JSON text: None for empty text, the text itself if it is not JSON."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
