"""Events are wrapped in the view that fits, and their data is a typed value."""

import copy
import json
import pickle
import typing
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration

from lavant.client import Event, Role, RunState, Usage
from lavant.client import event_data as data
from lavant.client.events import wrap
from lavant.v1.event_pb2 import (
    ROLE_ASSISTANT,
    ArtifactUpdated,
    MessageFinished,
    MessagePart,
    ProgressReported,
    RowFinished,
    Score,
    StepStarted,
    TextDelta,
    ToolCall,
    ToolCallFinished,
)
from lavant.v1.event_pb2 import Event as Proto
from lavant.v1.run_pb2 import RUN_STATE_FAILED, RUN_STATE_SUCCEEDED, Error, RunFinished, TokenUsage

PAYLOADS = [field.name for field in Proto.DESCRIPTOR.oneofs_by_name["payload"].fields]


def said(text: str) -> Proto:
    proto = Proto(sequence=3, event_id="p.3", step_id="s", text_delta=TextDelta(message_id="m", text=text))
    proto.event_time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    return proto


def finished(**given: Any) -> Event:
    return wrap(Proto(sequence=1, run_finished=RunFinished(**given)))


def payload_of(name: str) -> Descriptor:
    descriptor = Proto.DESCRIPTOR.fields_by_name[name].message_type
    assert descriptor is not None
    return descriptor


@pytest.mark.parametrize("name", PAYLOADS)
def test_every_payload_has_its_view_and_its_data(name: str) -> None:
    proto = Proto()
    getattr(proto, name).SetInParent()
    event = wrap(proto)
    assert event.type == name
    names = {field.name for field in fields(event.data)}
    assert names == {field.name.removesuffix("_json") for field in payload_of(name).fields}
    assert event.data is event.data
    assert not hasattr(event, "__dict__")
    assert not hasattr(event.data, "__dict__")
    assert json.loads(event.to_json()) == event.to_dict()
    with pytest.raises(FrozenInstanceError):
        setattr(event.data, names.pop(), 1)


def test_the_union_has_all_views() -> None:
    assert {view.type for view in typing.get_args(Event)} == {*PAYLOADS, "unknown"}


def test_fields_are_read_from_the_message() -> None:
    event = wrap(said("hello"))
    assert (event.sequence, event.event_id, event.step_id) == (3, "p.3", "s")
    assert event.time == datetime(2026, 1, 2, tzinfo=UTC)


def test_data_has_words_durations_and_decoded_json() -> None:
    event = finished(
        state=RUN_STATE_SUCCEEDED,
        output_json='{"answer": "cold"}',
        usage=TokenUsage(input_tokens=7, cost_usd=0.5),
        duration=Duration(seconds=1, nanos=500_000_000),
    )
    assert event.type == "run_finished"
    assert_type(event.data, data.RunFinished)
    assert event.data.state == "succeeded"
    assert event.data.state is RunState.SUCCEEDED
    assert event.data.output == {"answer": "cold"}
    assert event.data.usage == Usage(input_tokens=7, cost_usd=0.5)
    assert event.data.duration == timedelta(seconds=1.5)
    assert (event.data.error, event.data.evaluation) == (None, None)


def test_nested_values_are_typed_too() -> None:
    call = ToolCall(tool_call_id="c", tool_name="t", arguments_json='{"q": [1]}')
    message = MessageFinished(role=ROLE_ASSISTANT, parts=[MessagePart(text="a"), MessagePart(tool_call=call)])
    event = wrap(Proto(message_finished=message))
    assert event.type == "message_finished"
    assert event.data.role is Role.ASSISTANT
    assert [part.type for part in event.data.parts] == ["text", "tool_call"]
    assert event.data.parts[1].tool_call == data.ToolCallRequest(tool_call_id="c", tool_name="t", arguments={"q": [1]})
    row = wrap(Proto(row_finished=RowFinished(scores=[Score(name="ok", passed=True)], metrics={"tokens": 3})))
    assert row.type == "row_finished"
    assert [(score.name, score.value) for score in row.data.scores] == [("ok", True)]
    assert row.data.metrics == {"tokens": 3.0}


def test_what_is_absent_is_none_and_what_is_zero_is_zero() -> None:
    unknown, known = (wrap(Proto(progress_reported=given)) for given in (ProgressReported(), ProgressReported(total=0)))
    assert unknown.type == known.type == "progress_reported"
    assert (unknown.data.completed, unknown.data.total, known.data.total) == (None, None, 0)


def test_values_beyond_this_release_or_pythons_are_read() -> None:
    step = wrap(Proto(step_started=StepStarted(kind=99, input_json="{")))  # type: ignore[arg-type]
    assert step.type == "step_started"
    assert (step.data.kind, step.data.input) == ("unspecified", "{")
    late = Proto(tool_call_finished=ToolCallFinished(duration=Duration(seconds=315_576_000_000)))
    late.event_time.seconds = 1 << 62
    event = wrap(late)
    assert event.type == "tool_call_finished"
    assert event.data.duration == timedelta(seconds=315_576_000_000)
    assert event.time.year == 9999


def test_to_dict_is_plain_json() -> None:
    assert wrap(said("hello")).to_dict() == {
        "sequence": 3,
        "event_id": "p.3",
        "type": "text_delta",
        "time": "2026-01-02T00:00:00Z",
        "step_id": "s",
        "attributes": {},
        "data": {"message_id": "m", "part_index": 0, "text": "hello"},
    }
    ended = finished(state=RUN_STATE_FAILED, error=Error(message="no"), duration=Duration(seconds=2)).to_dict()["data"]
    assert (ended["state"], ended["error"]["message"], ended["duration"]) == ("failed", "no", 2.0)
    image = wrap(Proto(artifact_updated=ArtifactUpdated(data=b"\xff\xfe")))
    assert image.to_dict()["data"]["data"] == "//4="
    row = wrap(Proto(row_finished=RowFinished(metrics={"loss": float("nan")}, output_json="1e999")))
    assert row.to_dict()["data"]["metrics"] == {"loss": None}
    assert json.loads(row.to_json(), parse_constant=pytest.fail)["data"]["output"] is None


def test_to_json_is_one_line_of_ascii() -> None:
    text = wrap(said("a\u2028b\r\n\x85ü")).to_json()
    assert text.isascii()
    assert len(text.splitlines()) == 1
    assert json.loads(text)["data"]["text"] == "a\u2028b\r\n\x85ü"


def test_an_event_shows_its_payload_cut_short() -> None:
    assert repr(wrap(said("It is "))) == "<TextDeltaEvent 3: text='It is ', message_id='m'>"
    assert repr(finished(state=RUN_STATE_FAILED, error=Error(message="no"))) == (
        '<RunFinishedEvent 1: state=failed, error=message: "no">'
    )
    assert repr(wrap(Proto(sequence=1))) == "<UnknownEvent 1>"
    shown = repr(wrap(said("x" * 1_000_000)))
    assert len(shown) == 100
    assert shown.endswith("xxx...>")


def test_the_type_narrows_the_payload() -> None:
    event = wrap(said("hello"))
    if event.type == "text_delta":
        assert_type(event.data, data.TextDelta)
        assert event.data.text == "hello"
    else:
        pytest.fail("not narrowed")


def test_events_are_equal_by_content_and_can_be_copied() -> None:
    event = wrap(said("a"))
    assert event == wrap(said("a"))
    assert event != wrap(said("b"))
    assert len({event, wrap(said("a"))}) == 1
    assert event.data == wrap(said("a")).data
    for again in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event), copy.copy(event)):
        assert again == event
        assert again.data == event.data


def test_a_payload_of_the_future_is_unknown() -> None:
    assert wrap(Proto(sequence=1)).data == data.UnknownPayload()
    # Field 99 of Event, which holds the text "new".
    event = wrap(Proto.FromString(Proto(sequence=1).SerializeToString() + bytes([0x9A, 0x06, 3]) + b"new"))
    assert event.type == "unknown"
    assert event.data == data.UnknownPayload(field_number=99, content=b"new")
    assert event.to_dict()["data"] == {"field_number": 99, "content": "bmV3"}
    assert pickle.loads(pickle.dumps(event)).data == event.data
