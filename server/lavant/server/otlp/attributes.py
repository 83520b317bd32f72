"""Values of OpenTelemetry's attributes as Python values, JSON text, names and numbers. Nothing here raises."""

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from pydantic_core import from_json, to_json

from lavant.contract.json_values import bounded_text
from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.contract.text import to_name, to_text
from lavant.contract.values import is_json

_VERSION: Final = "service.version"
_MAX_COUNT: Final = 1 << 53
_BEGINNINGS: Final = frozenset('{["tfn-0123456789 \t\r\n')  # of JSON


def value_of(value: AnyValue) -> Any:
    """Return the value of an attribute: text, number, boolean, bytes, list or dict; None if it has none."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "kvlist_value":
        return {entry.key: value_of(entry.value) for entry in value.kvlist_value.values}
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def values_of(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Return all attributes by name, such as those of a resource."""
    return {entry.key: value_of(entry.value) for entry in attributes}


def version_of(resource: Mapping[str, Any]) -> str:
    """Return the version of the service that a resource describes; empty if it has none."""
    return to_name(text(resource.get(_VERSION, "")))


def text(value: Any) -> str:
    """Return a value as text: what is neither text nor a number as JSON."""
    return written(value) if isinstance(value, list | dict) else to_text(value)


def written(value: Any) -> str:
    """Return a value as JSON: NaN and infinities as null, bytes in Base64."""
    return to_json(value, inf_nan_mode="null", bytes_mode="base64").decode()


def count(value: Any) -> int:
    """Return a number of tokens, which some libraries write as text; 0 for a value that is none."""
    found = value if type(value) is int else number(value)
    return int(found) if found is not None and 0 <= found < _MAX_COUNT else 0


def number(value: Any) -> float | None:
    """Return a finite number, which some libraries write as text; None for a value that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if isfinite(found) else None


def decoded(value: Any) -> Any:
    """Return the value of JSON text, the text itself if it is not JSON, and any other value unchanged."""
    if not isinstance(value, str) or value[:1] not in _BEGINNINGS:
        return value
    try:
        return from_json(value, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        repaired = _repaired(value)
        return value if repaired is None else from_json(repaired, cache_strings=False)


def json_text(value: Any, limit: int = MAX_VALUE_BYTES) -> str:
    """Return a value as JSON text that events may have, of at most about `limit` bytes: empty for None and empty text.

    JSON text remains as written, if it is valid. Other text becomes a JSON string; NaN and infinities are null.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str):
        return bounded_text(written(value), limit)
    if value[0] in _BEGINNINGS:
        if is_json(value):
            return bounded_text(value, limit)
        if (repaired := _repaired(value)) is not None:
            return bounded_text(repaired, limit)
    return bounded_text(written(value), limit)


def _repaired(value: str) -> str | None:
    """Return JSON text without what only some writers of JSON allow; None if it is not JSON even so.

    Python writes NaN; JavaScript cuts characters in two, and writes the halves as escapes of unpaired surrogates.
    """
    if "NaN" not in value and "Infinity" not in value and "\\u" not in value:
        return None
    try:
        found = json.loads(value, parse_constant=lambda _: None)
        written = to_text(json.dumps(found, ensure_ascii=False, allow_nan=False))
    except (ValueError, RecursionError):
        return None
    return written if is_json(written) else None
