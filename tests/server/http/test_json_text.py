"""Messages as JSON: the same as protobuf's own mapping, whatever is in them."""

import json
import math
from functools import cache
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavant.contract.json_text import to_json
from lavant.v1.event_pb2 import AlertChanged, Event
from lavant.v1.event_service_pb2 import ListEventsResponse
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import ListRunsResponse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["\r\n", "\u2028\u2029\x85", "\x00", "\U0001f600", '"\\', "\ufeff", "</script>", "9007199254740993"]
)
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799  # the years 1 and 9999
SECONDS = st.integers(FIRST_SECOND, LAST_SECOND) | st.sampled_from([FIRST_SECOND, -1, 0, LAST_SECOND])
NANOS = st.integers(0, 999_999_999) | st.sampled_from([0, 1, 1_000, 10_000_000, 500_000_000])
DURATIONS = st.integers(-315_576_000_000, 315_576_000_000) | st.integers(-2, 2)
BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


@cache
def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values of a field that is no message."""
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values]) | st.integers(-(2**31), 2**31 - 1)
    if field.cpp_type in BITS:
        least, most = BITS[field.cpp_type]
        return st.integers(least, most) | st.sampled_from([least, most, 0])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=20)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return TEXT
    return st.booleans() if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else st.floats()


def fill(message: Any, draw: st.DrawFn, depth: int) -> None:
    """Set any of a message's fields to anything."""
    descriptor: Descriptor = message.DESCRIPTOR
    if descriptor.full_name == "google.protobuf.Timestamp":
        message.seconds, message.nanos = draw(SECONDS), draw(NANOS)
        return
    if descriptor.full_name == "google.protobuf.Duration":
        seconds = draw(DURATIONS)
        message.seconds, message.nanos = seconds, draw(NANOS) * (-1 if seconds < 0 else 1)
        return
    chosen = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=8, unique_by=lambda field: field.name))
    for field in chosen:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in draw(st.lists(TEXT, max_size=3)):
                inner = field.message_type.fields_by_name["value"]
                value[key] = draw(scalars(inner))
        elif field.message_type is None and field.is_repeated:
            value.extend(draw(st.lists(scalars(field), max_size=3)))
        elif field.message_type is None:
            setattr(message, field.name, draw(scalars(field)))
        elif depth and field.is_repeated:
            for _ in range(draw(st.integers(1, 2))):
                fill(value.add(), draw, depth - 1)
        elif depth:
            value.SetInParent()
            fill(value, draw, depth - 1)


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Message:
    """Any message of a kind."""
    message = kind()
    fill(message, draw, 4)
    return message


PAYLOADS = [
    GetMessageClass(field.message_type)
    for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
]


@pytest.mark.parametrize("kind", [Event, Run, ListEventsResponse, ListRunsResponse, *PAYLOADS])
def test_json_is_what_protobuf_says(kind: type[Message]) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(messages(kind))
    def check(message: Message) -> None:
        written = to_json(message)
        assert comparable(json.loads(written)) == comparable(MessageToDict(message, preserving_proto_field_name=True))
        assert written.isascii()
        assert "\n" not in written
        assert "\r" not in written

    check()


@pytest.mark.parametrize(
    ("seconds", "nanos", "written"),
    [
        (FIRST_SECOND, 0, "0001-01-01T00:00:00Z"),
        (LAST_SECOND, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
        (-1, 500_000_000, "1969-12-31T23:59:59.500Z"),
        (0, 1, "1970-01-01T00:00:00.000000001Z"),
        (951_782_400, 1_000, "2000-02-29T00:00:00.000001Z"),
    ],
)
def test_times(seconds: int, nanos: int, written: str) -> None:
    event = Event()
    event.event_time.seconds, event.event_time.nanos = seconds, nanos
    assert json.loads(to_json(event)) == {"event_time": written}


@pytest.mark.parametrize("number", [-0.0, 0.0, 1.5])
def test_a_negative_zero_is_a_value(number: float) -> None:
    changed = AlertChanged(rule_id="r", value=number, threshold=number)
    assert json.loads(to_json(changed)) == MessageToDict(changed, preserving_proto_field_name=True)


@pytest.mark.parametrize("number", [-0.0, 0.1, 1e15, 1e16, 1e308, 5e-324, -(2.0**53), math.inf, -math.inf])
def test_numbers_come_back_as_they_were(number: float) -> None:
    event = Event()
    event.row_finished.metrics["x"] = number
    back = Parse(to_json(event), Event()).row_finished.metrics["x"]
    assert (back, math.copysign(1, back)) == (number, math.copysign(1, number))


def comparable(value: Any) -> Any:
    """The same, with what is equal to nothing as text."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
