"""A URL's parameters. One that is not known, or not as it must be, is refused by its name."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.datastructures import QueryParams

from lavant.server.errors import invalid_field

_Value = TypeVar("_Value")

_NUMBER = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST = 1e9  # seconds


class Parameters:
    """Reads them. An empty one is taken as not given, but for those of `values`."""

    def __init__(self, query: QueryParams, known: Collection[str]) -> None:
        for name in query:
            if name not in known:
                raise invalid_field(name, f"is no parameter of this; there are {', '.join(sorted(known))}")
        self._query = query

    def text(self, name: str) -> str:
        """What may be given once."""
        return text(self._query, name)

    def texts(self, name: str) -> list[str]:
        """What may be given many times."""
        return [value for value in self._query.getlist(name) if value]

    def values(self, name: str) -> list[str]:
        """The same, where an empty one asks for what has none."""
        return self._query.getlist(name)

    def number(self, name: str) -> int:
        """A whole number; 0: not given."""
        value = self.text(name)
        if value and not _NUMBER.fullmatch(value):
            raise invalid_field(name, "must be a whole number")
        return int(value or 0)

    def decimal(self, name: str) -> float:
        """A number; 0: not given."""
        return _decimal(name, self.text(name) or "0")

    def decimals(self, name: str) -> list[float]:
        """Numbers."""
        return [_decimal(name, value) for value in self.texts(name)]

    def duration(self, name: str) -> Duration | None:
        """A number of seconds."""
        value = self.text(name)
        if value and not _DECIMAL.fullmatch(value):
            raise invalid_field(name, "must be a number of seconds")
        return _duration(float(value)) if value else None

    def span(self, name: str) -> Duration | None:
        """A number of seconds, or of m, h or d."""
        value = self.text(name)
        found = _SPAN.fullmatch(value)
        seconds = float(found[1]) * _SECONDS[found[2]] if found else 0
        if value and (not found or seconds >= _LONGEST):
            raise invalid_field(name, "must be a number of seconds, or of m, h or d: 15m")
        return _duration(seconds) if found else None

    def time(self, name: str) -> Timestamp | None:
        """A point in time."""
        value = self.text(name)
        if not value:
            return None
        result = Timestamp()
        try:
            if datetime.fromisoformat(value).tzinfo is None:
                raise ValueError(value)
            result.FromJsonString(value)
        except ValueError:
            raise invalid_field(name, "must be a time as RFC 3339 has it, such as 2026-05-04T10:00:00Z") from None
        return result

    def labels(self, name: str) -> dict[str, str]:
        """Labels, each a name and its value."""
        found: dict[str, str] = {}
        for label in self.texts(name):
            key, equals, value = label.partition("=")
            if not equals or not key:
                raise invalid_field(name, "must be NAME=VALUE")
            if found.setdefault(key, value) != value:
                raise invalid_field(name, f"asks for two values of {key}; there is but one")
        return found

    def choice(self, name: str, known: Mapping[str, _Value]) -> _Value:
        """One of some words."""
        value = self.text(name)
        if value not in known:
            raise invalid_field(name, f"must be one of {', '.join(filter(None, known))}")
        return known[value]

    def enum(self, name: str, items: Iterable[tuple[str, Any]], prefix: str) -> Any:
        """An enum's value; 0: not given."""
        return self.choice(name, {"": 0, **_words(items, prefix)})

    def enums(self, name: str, items: Iterable[tuple[str, Any]], prefix: str) -> list[Any]:
        """An enum's values."""
        words = _words(items, prefix)
        for value in self.texts(name):
            if value not in words:
                raise invalid_field(name, f"must be one of {', '.join(words)}")
        return [words[value] for value in self.texts(name)]


def text(query: QueryParams, name: str) -> str:
    """Read one parameter, whatever others there are."""
    values = query.getlist(name)
    if len(values) > 1:
        raise invalid_field(name, "may be given once")
    return values[0] if values else ""


def _decimal(name: str, value: str) -> float:
    if not _DECIMAL.fullmatch(value):
        raise invalid_field(name, "must be a number")
    return float(value)


def _duration(seconds: float) -> Duration:
    result = Duration()
    result.FromNanoseconds(round(seconds * 1e9))
    return result


def _words(items: Iterable[tuple[str, Any]], prefix: str) -> dict[str, Any]:
    """An enum's values by the words that people write: RUN_STATE_TIMED_OUT is timed_out."""
    return {name.removeprefix(prefix).lower(): number for name, number in items if number}
