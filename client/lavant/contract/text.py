"""Names and ids: which are allowed, and the conversion of others."""

import re
from hashlib import sha256
from typing import Any

from lavant.contract.limits import MAX_ID_LENGTH, MAX_NAME_LENGTH, OWN_RUNS

_RUN_ID = re.compile(r"[A-Za-z0-9._~-]+")
_NOT_IN_RUN_ID = re.compile(r"[^A-Za-z0-9._~-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DIGEST_LENGTH = 16


def is_run_id(value: str, at_most: int = MAX_ID_LENGTH) -> bool:
    """Return whether an id of a run, rule, consumer or session is allowed: it is part of keys, paths and tokens."""
    return len(value) <= at_most and _RUN_ID.fullmatch(value) is not None and value not in {".", ".."}


def is_id(value: str) -> bool:
    """Return whether an id of something in a run is allowed: a step, message, tool call or row."""
    return 0 < len(value) <= MAX_ID_LENGTH and _CONTROL.search(value) is None


def is_name(value: str, at_least: int = 0, at_most: int = MAX_NAME_LENGTH) -> bool:
    """Return whether a name for people is allowed: any characters except control characters."""
    return at_least <= len(value) <= at_most and _CONTROL.search(value) is None


def to_text(value: Any) -> str:
    """Return any value as text that UTF-8 can encode, without calling code of its type.

    None is empty, unpaired surrogates are U+FFFD, bytes are decoded; other types are named.
    """
    kind = type(value)  # not isinstance, which asks the value for its __class__: a lazy proxy would load
    if issubclass(kind, str):
        text = str.__str__(value)
        return text if text.isascii() else _encodable(text)
    if value is None:
        return ""
    if kind is bool:
        return "true" if value else "false"
    if issubclass(kind, int):
        # Printing is quadratic in the digits, and Python refuses more than 4,300.
        return int.__repr__(value) if int.bit_length(value) < _MAX_BITS else f"<{kind.__name__}>"
    if issubclass(kind, float):
        return float.__repr__(value)
    if issubclass(kind, bytes | bytearray):
        return bytes(memoryview(value)).decode(errors="replace")
    return f"<{kind.__name__}>"


def to_name(value: object, *, default: str = "", at_most: int = MAX_NAME_LENGTH) -> str:
    """Return the closest name that is allowed: control characters become spaces, and the end is cut."""
    text = to_text(value)
    return _shortened(_CONTROL.sub(" ", text), at_most) or default


def to_id(value: object) -> str:
    """Return the id of a value within a run: itself if allowed, else one that is the same for the same value.

    Different values have different ids. Empty values have an empty one.
    """
    text = to_text(value)
    return text if not text or is_id(text) else _digested(_CONTROL.sub("_", text), text)


def to_run_id(value: object) -> str:
    """Return the id of a run for a value, like `to_id`."""
    text = to_text(value)
    if not text or (is_run_id(text) and not text.startswith(OWN_RUNS)):
        return text
    readable = _NOT_IN_RUN_ID.sub("_", text)
    return _digested(f"_{readable}" if readable.startswith(OWN_RUNS) else readable, text)


_MAX_BITS = 4_096


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _shortened(text: str, at_most: int) -> str:
    return text if len(text) <= at_most else f"{text[: at_most - 1]}…"


def _digested(readable: str, text: str) -> str:
    digest = sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{readable[: MAX_ID_LENGTH - _DIGEST_LENGTH - 1]}~{digest}"
