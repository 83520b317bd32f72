"""Conversion of the contract's messages to values: one rule for all of them.

A field of a value is read from the message's field of the same name, from that name with `_json` (decoded), or from
the name in the value's `_contract_names`. If the message does not set it, the value keeps its default.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.client._wire import json_text as _json

_FIRST_TIME, _LAST_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

_JSON = "_json"

Value = TypeVar("Value")
Read = Callable[[Any], Any]


def to_datetime(value: Timestamp) -> datetime:
    """Return a time in UTC, to the microsecond. Times outside of Python's range become its first or last."""
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (OverflowError, ValueError):
        return _LAST_TIME if value.seconds > 0 else _FIRST_TIME


def to_timedelta(value: Duration) -> timedelta:
    """Return a duration. Durations outside of Python's range become its longest."""
    try:
        return value.ToTimedelta()
    except OverflowError:
        return timedelta.max if value.seconds > 0 else timedelta.min


# How to read a message or an enum, by its full name. Modules add those that they define.
READERS: dict[str, Read] = {
    Duration.DESCRIPTOR.full_name: to_timedelta,
    Timestamp.DESCRIPTOR.full_name: to_datetime,
}


@cache
def reader(kind: type[Value], descriptor: Descriptor) -> Callable[[Message], Value]:
    """Return a function that reads messages of one type into a dataclass with slots.

    The function is made for the type, as dataclasses make theirs: reading by a plan, through an `__init__` that
    circumvents `frozen`, takes four times as long, and is most of what a reader of a stream of text spends.
    """
    plan = {name: rest for name, *rest in _plan(cast("Hashable", kind), descriptor)}
    names: dict[str, Any] = {"new": object.__new__, "kind": kind}
    lines = ["def read(message):", " value = new(kind)"]
    for number, field in enumerate(fields(cast("Any", kind))):
        contract_name, has_presence, convert = plan.get(field.name, ("", False, None))
        names |= {
            f"set{number}": getattr(kind, field.name).__set__,
            f"convert{number}": convert,
            f"default{number}": field.default,
        }
        found = f"message.{contract_name}" if contract_name else f"default{number}"
        if convert is not None:
            found = f"convert{number}({found})"
        if has_presence:
            found += f" if message.HasField({contract_name!r}) else default{number}"
        lines.append(f" set{number}(value, {found})")
    exec("\n".join([*lines, " return value"]), names)  # noqa: S102 - of names in the contract and in this package
    return cast("Callable[[Message], Value]", names["read"])


def read(kind: Callable[..., Value], message: Message, **given: Any) -> Value:
    """Return the value of class `kind` of a message. `given` are fields that the message does not have."""
    values = dict(given)
    for name, contract_name, has_presence, convert in _plan(cast("Hashable", kind), message.DESCRIPTOR):
        if name not in given and (not has_presence or message.HasField(contract_name)):
            value = getattr(message, contract_name)
            values[name] = value if convert is None else convert(value)
    return kind(**values)


@cache
def _plan(kind: Hashable, descriptor: Descriptor) -> list[tuple[str, str, bool, Read | None]]:
    """Return for each field of a value: its name, the contract's name, whether it may be absent, the conversion."""
    names: Mapping[str, str] = getattr(kind, "_contract_names", {})
    plan = []
    for name in getattr(kind, "__dataclass_fields__", None) or getattr(kind, "__pydantic_fields__"):  # noqa: B009
        contract_name = names.get(name, name)
        found = descriptor.fields_by_name.get(contract_name) or descriptor.fields_by_name.get(contract_name + _JSON)
        if found is not None:
            plan.append((name, found.name, found.has_presence, _converter(found)))
    return plan


def _converter(field: FieldDescriptor) -> Read | None:
    kind = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict
    if kind is not None:
        one = READERS[kind.full_name]
    elif field.name.endswith(_JSON):
        one = _json.decode
    else:
        return tuple if field.is_repeated else None
    return (lambda several: tuple(map(one, several))) if field.is_repeated else one
