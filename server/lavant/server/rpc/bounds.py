"""Checks of requests, compiled from the bounds that the contract declares for its fields."""

from collections.abc import Callable
from functools import wraps
from math import inf, isfinite
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.contract.text import is_name, is_run_id
from lavant.contract.values import is_duration, is_json, is_time, seconds_of
from lavant.server.errors import invalid_field
from lavant.v1 import bounds_pb2 as pb

_Check = Callable[[Any], None]
_MethodT = TypeVar("_MethodT", bound=Callable[..., Any])

_INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32}
_NUMBERS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
_LONGEST_KEY = 60  # characters of a map's key in an error


class _Refused(Exception):
    """A value beyond its bounds: the path to it, relative to the message that is being checked, and the rule."""

    def __init__(self, path: str, rule: str) -> None:
        self.path = path
        self.rule = rule


def checked(request_type: type[Message]) -> Callable[[_MethodT], _MethodT]:
    """Check the request of an RPC before its method runs, whichever protocol the call came by.

    The method raises INVALID_FIELD with the path of the first field that is beyond its bounds.
    """
    check = bounds_check(request_type)

    def decorate(method: _MethodT) -> _MethodT:
        @wraps(method)
        def call(service: Any, request: Message, *args: Any) -> Any:
            check(request)
            return method(service, request, *args)

        return cast("_MethodT", call)

    return decorate


def bounds_check(message_type: type[Message], path: str = "") -> _Check:
    """Return the check of a message that is found at `path` in a request; it raises INVALID_FIELD as `checked` does."""
    check = _message_check(cast("Descriptor", message_type.DESCRIPTOR))
    prefix = f"{path}." if path else ""

    def check_bounds(message: Message) -> None:
        try:
            check(message)
        except _Refused as refused:
            raise invalid_field(prefix + refused.path, refused.rule) from None

    return check_bounds


def _message_check(message_type: Descriptor) -> _Check:
    fields = []
    for field in message_type.fields:
        bounds = field.GetOptions().Extensions[pb.bounds]
        if (check := _field_check(field, bounds)) is not None:
            fields.append((field.name, field.has_presence, bounds.required, check))

    def check_message(message: Any) -> None:
        for name, can_be_absent, is_required, check in fields:
            if can_be_absent and not message.HasField(name):
                if is_required:
                    raise _Refused(name, "must be set")
                continue
            try:
                check(getattr(message, name))
            except _Refused as refused:
                # Paths are put together on the way out: the checks of a valid request build none.
                joint = "" if refused.path.startswith("[") or not refused.path else "."
                raise _Refused(f"{name}{joint}{refused.path}", refused.rule) from None

    return check_message


def _field_check(field: FieldDescriptor, bounds: pb.Bounds) -> _Check | None:
    if not field.is_repeated:
        return _value_check(field, bounds)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key = _value_check(kind.fields_by_name["key"], bounds.key)
        value = _value_check(kind.fields_by_name["value"], bounds.each)
        return _map_check(bounds, key, value)
    return _list_check(bounds, _value_check(field, bounds.each))


def _list_check(bounds: pb.Bounds, check: _Check | None) -> _Check:
    least, most = _limits(bounds)
    rule = _count_rule(least, most)

    def check_list(items: Any) -> None:
        if not least <= len(items) <= most:
            raise _Refused("", f"{rule}, not {len(items):,}")
        if check is None:
            return
        for index, item in enumerate(items):
            try:
                check(item)
            except _Refused as refused:
                raise _Refused(f"[{index}]{'.' * bool(refused.path)}{refused.path}", refused.rule) from None

    return check_list


def _map_check(bounds: pb.Bounds, key_check: _Check | None, value_check: _Check | None) -> _Check:
    least, most = _limits(bounds)
    rule = _count_rule(least, most)

    def check_map(items: Any) -> None:
        if not least <= len(items) <= most:
            raise _Refused("", f"{rule}, not {len(items):,}")
        for key, value in items.items():
            try:
                if key_check is not None:
                    key_check(key)
            except _Refused as refused:
                raise _Refused("", f"each key {refused.rule}; {key[:_LONGEST_KEY]!r} is not") from None
            try:
                if value_check is not None:
                    value_check(value)
            except _Refused as refused:
                raise _Refused(f"[{key[:_LONGEST_KEY]!r}]", refused.rule) from None

    return check_map


def _value_check(field: FieldDescriptor, bounds: pb.Bounds) -> _Check | None:
    kind = field.message_type
    if kind is not None:
        return _well_known_check(kind.full_name, bounds) or _message_check(kind)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.name.endswith("_json"):
            return _check_json
        return _text_check(bounds) if bounds.ByteSize() else None
    if field.enum_type is not None:
        return _enum_check({value.number: value.name for value in field.enum_type.values}, bounds)
    if field.cpp_type in _NUMBERS or (field.cpp_type in _INTEGERS and bounds.ByteSize()):
        return _number_check(bounds)
    return None


def _text_check(bounds: pb.Bounds) -> _Check:
    least, most = _limits(bounds)
    lengths = f"must be {least:,.0f} to {most:,.0f} characters"
    if bounds.form == pb.TEXT_FORM_ID:

        def check_id(text: str) -> None:
            if text in {".", ".."}:
                raise _Refused("", "must not be . or .., which mean something else in a URL")
            if not is_run_id(text, int(most)) and (text or least):
                raise _Refused("", f"must be 1 to {most:,.0f} characters of A-Z a-z 0-9 . _ ~ -")

        return check_id

    named = bounds.form == pb.TEXT_FORM_NAME

    def check_text(text: str) -> None:
        if not least <= len(text) <= most:
            raise _Refused("", f"{lengths} long, not {len(text):,}")
        if named and not is_name(text, 0, len(text)):
            raise _Refused("", "must not contain control characters")

    return check_text


def _check_json(text: str) -> None:
    if text and not is_json(text):
        raise _Refused("", "must be empty or valid JSON; NaN and Infinity are not JSON")


def _enum_check(names: dict[int, str], bounds: pb.Bounds) -> _Check:
    least, most = _limits(bounds)
    allowed = {number: name for number, name in names.items() if least <= number <= most}

    def check_enum(value: int) -> None:
        if value not in allowed:
            raise _Refused("", f"must be one of {', '.join(allowed.values())}")

    return check_enum


def _number_check(bounds: pb.Bounds) -> _Check:
    is_within, rule = _range(bounds)

    def check_number(value: float) -> None:
        if not is_within(value):
            raise _Refused("", f"{rule}, not {value:,.15g}")

    return check_number


def _range(bounds: pb.Bounds, unit: str = "") -> tuple[Callable[[float], bool], str]:
    """Return whether a finite number is within its bounds, and the rule in words."""
    limits = {
        name: f"{getattr(bounds, name):,.15g}{unit}"
        for name in ("min", "max", "above", "below")
        if bounds.HasField(name)
    }
    least, most = bounds.min if "min" in limits else -inf, bounds.max if "max" in limits else inf
    above, below = bounds.above if "above" in limits else -inf, bounds.below if "below" in limits else inf
    words = {"min": "at least", "max": "at most"}
    rules = [f"{words.get(name, name)} {text}" for name, text in limits.items()]
    if "min" in limits and "max" in limits:
        rules[:2] = [f"{limits['min']} to {limits['max']}"]
    rule = f"must be {' and '.join(rules) or 'a finite number'}"
    return lambda value: least <= value <= most and above < value < below and isfinite(value), rule


def _well_known_check(name: str, bounds: pb.Bounds) -> _Check | None:
    if name == Duration.DESCRIPTOR.full_name:
        return _duration_check(bounds)
    if name == Timestamp.DESCRIPTOR.full_name:
        return _check_time
    return None


def _duration_check(bounds: pb.Bounds) -> _Check:
    is_within, rule = _range(bounds, " s")

    def check_duration(value: Duration) -> None:
        if not is_duration(value):
            raise _Refused("", "must be within ±315,576,000,000 s, with nanos of the sign of the seconds")
        if not is_within(seconds_of(value)):
            raise _Refused("", rule)

    return check_duration


def _check_time(value: Timestamp) -> None:
    if not is_time(value):
        raise _Refused("", "must lie in the years 1 to 9999, with nanos from 0 to 999,999,999")


def _limits(bounds: pb.Bounds) -> tuple[float, float]:
    return bounds.min, bounds.max if bounds.HasField("max") else inf


def _count_rule(least: float, most: float) -> str:
    return f"must have {least:,.0f} to {most:,.0f} items" if least else f"must have at most {most:,.0f} items"
