"""Events are wrapped in the view that fits."""

import typing
from datetime import UTC, datetime
from typing import assert_type

import pytest

from lavant.client import Event
from lavant.client._events import wrap
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import Event as Proto
from lavant.v1.event_pb2 import TextDelta
from lavant.v1.run_pb2 import RUN_STATE_FAILED, Error, RunFinished

PAYLOADS = [field.name for field in Proto.DESCRIPTOR.oneofs_by_name["payload"].fields]


def said(text: str) -> Proto:
    proto = Proto(sequence=3, event_id="p.3", step_id="s", text_delta=TextDelta(message_id="m", text=text))
    proto.event_time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    return proto


@pytest.mark.parametrize("name", PAYLOADS)
def test_every_payload_has_its_view(name: str) -> None:
    proto = Proto()
    getattr(proto, name).SetInParent()
    event = wrap(proto)
    assert event.type == name
    assert event.data is getattr(proto, name) or event.data == getattr(proto, name)
    assert not hasattr(event, "__dict__")


def test_the_union_has_all_views() -> None:
    assert {view.type for view in typing.get_args(Event)} == {*PAYLOADS, "unknown"}


def test_fields_are_read_from_the_message() -> None:
    event = wrap(said("hello"))
    assert (event.sequence, event.event_id, event.step_id) == (3, "p.3", "s")
    assert event.time == datetime(2026, 1, 2, tzinfo=UTC)


def test_an_event_shows_its_payload_cut_short() -> None:
    assert repr(wrap(said("It is "))) == "<TextDeltaEvent 3: text='It is ', message_id='m'>"
    finished = Proto(sequence=1, run_finished=RunFinished(state=RUN_STATE_FAILED, error=Error(message="no")))
    assert repr(wrap(finished)) == '<RunFinishedEvent 1: state=RUN_STATE_FAILED, error=message: "no">'
    assert repr(wrap(Proto(sequence=1))) == "<UnknownEvent 1>"
    shown = repr(wrap(said("x" * 1_000_000)))
    assert len(shown) == 100
    assert shown.endswith("xxx...>")


def test_the_type_tells_the_payload() -> None:
    event = wrap(said("hello"))
    if event.type == "text_delta":
        assert_type(event.data, event_pb2.TextDelta)
        assert event.data.text == "hello"
    else:
        pytest.fail("not narrowed")


def test_events_are_equal_by_content() -> None:
    assert wrap(said("a")) == wrap(said("a"))
    assert wrap(said("a")) != wrap(said("b"))


def test_a_payload_of_the_future_is_unknown() -> None:
    event = wrap(Proto(sequence=1))
    assert event.type == "unknown"
    assert event.data is None
