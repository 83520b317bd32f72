"""JSON text, the form in which values travel."""

import json
from typing import Any

from pydantic_core import to_json


def encode(value: object) -> str:
    """Return a value's JSON text; pydantic models, dataclasses and dates included.

    What JSON cannot say is written as its repr, NaN and infinities as null.
    """
    return to_json(value, fallback=repr, inf_nan_mode="null", bytes_mode="base64").decode()


def encode_optional(value: object) -> str:
    """Return a value's JSON text, and nothing for None."""
    return "" if value is None else encode(value)


def checked(text: str) -> str:
    """Return JSON text as it is, and text that is none as a JSON string: a model's arguments may be malformed."""
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
