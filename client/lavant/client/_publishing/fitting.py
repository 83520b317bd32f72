"""Conversion of any values to those that the contract allows."""

import sys
from collections.abc import Mapping
from math import isfinite
from typing import Any

from lavant.client._wire import json_text as _json
from lavant.client._wire.snapshot import TRUNCATED
from lavant.client.models import Usage
from lavant.contract.json_values import bounded_text
from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.contract.text import is_name, to_id, to_name, to_run_id, to_text
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import TokenUsage

# The attribute of an event that names the fields that were changed, and how: `output_json is too large`.
CHANGED = "lavant.changed"
MAX_TEXT = 8_192
_MAX_INT64, _MAX_INT32, _MAX_FLOAT = 2**63 - 1, 2**31 - 1, sys.float_info.max


class Fitting:
    """Converts the values of one event, and records which of them were changed. No method raises."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes: list[str] = []

    def event(self, step_id: str = "", **payload: Any) -> Event:
        """Return an event with this payload. Its attribute CHANGED names the fields that were changed."""
        event = Event(step_id=step_id, **payload)
        if self.changes:
            event.attributes[CHANGED] = "; ".join(self.changes)
        return event

    def note(self, what: str) -> None:
        """Record a change."""
        self.changes.append(what)

    def json(self, field: str, value: object, limit: int = MAX_VALUE_BYTES) -> str:
        """Return a value's JSON text."""
        text, flaw = _json.encode_flawed(value, limit)
        if flaw:
            self._note(field, flaw)
        return text

    def optional_json(self, field: str, value: object) -> str:
        """Return a value's JSON text, and nothing for None."""
        return "" if value is None else self.json(field, value)

    def json_text(self, field: str, text: object) -> str:
        """Return JSON text unchanged, and other text as a JSON string: a model's arguments may be malformed."""
        checked = _json.checked(text)
        if len(checked) * 4 <= MAX_VALUE_BYTES or len(checked.encode()) <= MAX_VALUE_BYTES:
            return checked
        self._note(field, TRUNCATED)
        return bounded_text(checked)

    def data(self, field: str, value: Any) -> bytes:
        """Return bytes; text as UTF-8, other types as nothing."""
        kind = type(value)
        if issubclass(kind, bytes | bytearray | memoryview):
            return bytes(memoryview(value))
        if value is not None:
            self._note(field, f"is a {kind.__name__}, not bytes")
        return to_text(value).encode() if issubclass(kind, str) else b""

    def name(self, field: str, value: object, default: str = "") -> str:
        """Return a name for people, of at most 256 characters without control characters."""
        return self._as(field, to_name(value, default=default), value)

    def text(self, field: str, value: object, at_most: int = MAX_TEXT) -> str:
        """Return text for people, cut after `at_most` characters."""
        text = to_text(value)
        return self._as(field, text if len(text) <= at_most else f"{text[: at_most - 1]}…", value)

    def id(self, field: str, value: object) -> str:
        """Return an id that may be used within a run."""
        return self._as(field, to_id(value), value)

    def run_id(self, field: str, value: object) -> str:
        """Return an id that a run may have."""
        return self._as(field, to_run_id(value), value)

    def key(self, field: str, value: object) -> str:
        """Return a name that things are grouped by: different ones stay different if they have to be shortened."""
        text = to_text(value)
        return self._as(field, text if is_name(text) else to_id(text), value)

    def number(self, field: str, value: object, at_least: int = -_MAX_INT64, at_most: int = _MAX_INT64) -> int | None:
        """Return a whole number within bounds, else None."""
        if value is None:
            return None
        kind = type(value)
        if issubclass(kind, float) and isfinite(float.__float__(value)):  # type: ignore[arg-type]
            value, kind = int(float.__float__(value)), int  # type: ignore[arg-type]
        if issubclass(kind, int) and at_least <= (whole := int.__index__(value)) <= at_most:  # type: ignore[arg-type]
            return whole
        self._note(field, "is no number that fits")
        return None

    def small(self, field: str, value: object, default: int) -> int:
        """Return a number from 0 to 2^31 - 1."""
        number = self.number(field, value, 0, _MAX_INT32)
        return default if number is None else number

    def cost(self, field: str, value: Any) -> float | None:
        """Return a finite number, else None."""
        if value is None:
            return None
        if type(value) in (int, float) and abs(value) <= _MAX_FLOAT:
            return float(value)
        self._note(field, "is no finite number")
        return None

    def usage(self, used: Usage | None) -> TokenUsage | None:
        """Return tokens and cost, without numbers out of bounds."""
        if used is None:
            return None
        if not issubclass(type(used), Usage):
            self._note("usage", f"is a {type(used).__name__}, not a Usage")
            return None
        given: Mapping[str, object] = used.__dict__
        fitting = TokenUsage(
            model=self.name("usage.model", given.get("model")), cost_usd=self.cost("usage.cost_usd", used.cost_usd)
        )
        for field in _TOKENS:
            setattr(fitting, field, self.number(f"usage.{field}", given.get(field)) or 0)
        return fitting

    def _note(self, field: str, how: str) -> None:
        self.note(f"{field} {how}")

    def _as(self, field: str, fitting: str, given: object) -> str:
        if given is not None and type(given) is not str:
            self._note(field, f"is a {type(given).__name__}, not text")
        elif fitting != to_text(given):  # unpaired surrogates are no text to begin with
            self._note(field, "has characters that are not allowed, or too many")
        return fitting


_TOKENS = [field.name for field in TokenUsage.DESCRIPTOR.fields if field.name not in {"model", "cost_usd"}]
