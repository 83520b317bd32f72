"""Query parameters: the types of their values, and the base of their models."""

import re
from datetime import datetime
from typing import Annotated, Any, Self, TypeVar, get_origin

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import CoreSchema, core_schema
from starlette.datastructures import QueryParams

from lavant.server.errors import invalid_field

_Value = TypeVar("_Value")
_Message = TypeVar("_Message", bound=Message)
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST = 1e9  # seconds


class Query(BaseModel):
    """Base of the parameters of a path. An unknown one is refused; an empty one counts as absent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, query: QueryParams) -> Self:
        """Read the parameters of a URL. Raises INVALID_FIELD with the name of the first that is not valid."""
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        values: dict[str, str | list[str]] = {}
        for name in query:
            if name not in fields:
                raise invalid_field(name, f"is not a parameter of this path; use one of {', '.join(sorted(fields))}")
            given = query.getlist(name)
            if get_origin(fields[name].annotation) in (list, dict):
                values[name] = given
            elif len(given) > 1:
                raise invalid_field(name, "may be given once")
            elif given[0]:
                values[name] = given[0]
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            message = problem["msg"].removeprefix("Value error, ").replace("Input should", "must")
            raise invalid_field(str(problem["loc"][0]), message) from None

    def message(self, kind: type[_Message], **more: Any) -> _Message:
        """Return a message of the contract with the parameters that are fields of it, and `more`."""
        fields = kind.DESCRIPTOR.fields_by_name
        values = {name: getattr(self, name) for name in type(self).model_fields if name in fields}
        return kind(**{name: value for name, value in values.items() if value is not None}, **more)


class Words:
    """Annotation of an enum whose values are written as words: RUN_STATE_TIMED_OUT is timed_out."""

    def __init__(self, enum: Any, prefix: str) -> None:
        self._values: dict[str, int] = {
            name.removeprefix(prefix).lower(): number for name, number in enum.items() if number
        }

    def __get_pydantic_core_schema__(self, *_: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._parse)

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(self._values)}

    def _parse(self, word: str) -> int:
        if word not in self._values:
            raise ValueError(f"must be one of {', '.join(self._values)}")
        return self._values[word]


def _without_empty(values: list[str]) -> list[str]:
    return [value for value in values if value]


def _seconds(value: str) -> Duration:
    if not value[-1:].isdecimal():
        raise ValueError("must be a number of seconds")
    return _span(value)


def _span(value: str) -> Duration:
    found = _SPAN.fullmatch(value)
    seconds = float(found[1]) * _UNITS[found[2]] if found else _LONGEST
    if seconds >= _LONGEST:
        raise ValueError("must be a number of seconds, or of m, h or d, such as 15m")
    result = Duration()
    result.FromNanoseconds(round(seconds * 1e9))
    return result


def _time(value: str) -> Timestamp:
    result = Timestamp()
    try:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(value)
        result.FromJsonString(value)  # keeps nanoseconds, which datetime does not
    except ValueError:
        raise ValueError("must be a time in RFC 3339 format, such as 2026-05-04T10:00:00Z") from None
    return result


def _labels(values: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for label in _without_empty(values):
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise ValueError("must be NAME=VALUE")
        if found.setdefault(key, value) != value:
            raise ValueError(f"has two values of {key}; a run has one at most")
    return found


def _flag(value: object) -> object:
    if value not in {True, False, "true", "false"}:
        raise ValueError("must be true or false")
    return value


# Nothing else counts as true: whoever displaces a reader must say so clearly.
Flag = Annotated[bool, BeforeValidator(_flag)]
Many = Annotated[list[_Value], BeforeValidator(_without_empty)]
Seconds = Annotated[Duration, PlainValidator(_seconds), WithJsonSchema({"type": "number", "minimum": 0})]
Span = Annotated[Duration, PlainValidator(_span), WithJsonSchema({"type": "string", "pattern": f"^{_SPAN.pattern}$"})]
Time = Annotated[Timestamp, PlainValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
Labels = Annotated[
    dict[str, str],
    PlainValidator(_labels),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": "^[^=]+="}}),
]
