"""Rules for values in events: JSON texts, durations, times and numbers."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic_core import from_json

from lavant.contract.limits import MAX_BATCH_BYTES, MAX_DURATION, NANOS, YEAR_1, YEAR_9999

ID_BYTES = "id_bytes"


class Violation(Exception):
    """A field that breaks a rule: its path in the request, such as `batch.events[3].event_id`, and the rule."""

    def __init__(self, path: str, description: str) -> None:
        super().__init__(f"{path}: {description}")
        self.path = path
        self.description = description


class TooManyOpen(Violation):
    """The run has as many open steps, messages, tool calls or inputs as the contract allows, or IDs of that many bytes.

    `kind` is what there is too much of: "steps", "messages", "tool_calls", "inputs" or "id_bytes".
    """

    def __init__(self, path: str, kind: str, limit: int) -> None:
        name = "bytes of IDs of what is" if kind == ID_BYTES else f"{kind.replace('_', ' ')} that are"
        advice = "finish some, or start another run" if kind != ID_BYTES else "finish some, or use shorter IDs"
        super().__init__(path, f"the run has {limit} {name} not finished, the most; {advice}")
        self.kind = kind
        self.limit = limit


_LONGEST_KEY = 60

Check = Callable[[str, Any], None]


def value_check(message_type: Descriptor) -> Check | None:
    """Return the check of a type of message that does not contain itself; None if all its values are free.

    It is given a path and the message that is found there, and raises Violation with the path of the field
    unless JSON texts are empty or valid, durations and times are within protobuf's bounds, and numbers are
    finite: JSON knows no others, so that readers of it could not be given the event.
    """
    if message_type.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[message_type.full_name]
    fields = [(field.name, field.has_presence, check) for field in message_type.fields if (check := _field(field))]

    def check_fields(path: str, message: Message) -> None:
        for name, may_be_absent, check in fields:
            if not may_be_absent or message.HasField(name):
                check(f"{path}.{name}", getattr(message, name))

    return check_fields if fields else None


def is_json(text: str) -> bool:
    """Return whether text is JSON that readers accept: nested about 200 deep, numbers up to 4,300 digits."""
    try:
        from_json(text, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        return False
    return True


def is_time(time: Timestamp) -> bool:
    """Return whether a time is within google.protobuf.Timestamp's bounds."""
    return YEAR_1 <= time.seconds <= YEAR_9999 and 0 <= time.nanos < NANOS


def is_duration(value: Duration) -> bool:
    """Return whether a duration is within google.protobuf.Duration's bounds."""
    same_sign = value.seconds * value.nanos >= 0
    return same_sign and abs(value.seconds) <= MAX_DURATION and abs(value.nanos) < NANOS


def seconds_of(value: Duration) -> float:
    """Return the seconds of a duration."""
    return value.seconds + value.nanos / 1e9


def _field(field: FieldDescriptor) -> Check | None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        check = _field(kind.fields_by_name["value"])
        return _of_each_key(check) if check else None
    check = value_check(kind) if kind is not None else _scalar(field)
    return _of_each(check) if check and field.is_repeated else check


def _scalar(field: FieldDescriptor) -> Check | None:
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _check_number
    return _check_json if field.name.endswith("_json") else None


def _of_each(check: Check) -> Check:
    def check_items(path: str, items: Sequence[Any]) -> None:
        for index, item in enumerate(items):
            check(f"{path}[{index}]", item)

    return check_items


def _of_each_key(check: Check) -> Check:
    def check_items(path: str, items: Mapping[str, Any]) -> None:
        for key, item in items.items():
            check(f"{path}[{key[:_LONGEST_KEY]!r}]", item)

    return check_items


def _check_json(path: str, text: str) -> None:
    if not text or len(text) > MAX_BATCH_BYTES:  # its batch is refused as too large
        return
    if not is_json(text):
        raise Violation(path, "must be empty or valid JSON; NaN and Infinity are not JSON")


def _check_number(path: str, value: float) -> None:
    if not isfinite(value):
        raise Violation(path, "must be a finite number; leave out what is not known")


def _check_duration(path: str, value: Duration) -> None:
    if not is_duration(value):
        raise Violation(
            path, f"must be within ±{MAX_DURATION:,} s, with nanos below {NANOS:,} and of the seconds' sign"
        )


def check_time(path: str, value: Timestamp) -> None:
    """Raise Violation unless a time is within protobuf's bounds."""
    if not is_time(value):
        raise Violation(path, "must lie in the years 1 to 9999, with nanos from 0 to 999,999,999")


_WELL_KNOWN: Mapping[str, Check] = {
    Duration.DESCRIPTOR.full_name: _check_duration,
    Timestamp.DESCRIPTOR.full_name: check_time,
}
