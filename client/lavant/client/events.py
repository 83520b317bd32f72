"""Events of a run: typed views of the contract's messages.

`if event.type == "text_delta":` narrows `event.data` to TextDelta for type checkers: an immutable value with JSON
decoded and enums that equal their words.

Example:
    async for event in client.runs.stream(run_id):
        match event.type:
            case "text_delta":
                print(event.data.text, end="")
            case "tool_call_started":
                print(event.data.call.tool_name)
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, get_args

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from pydantic_core import to_jsonable_python

from lavant.client import event_data as data_of
from lavant.client._wire.values import READERS, reader, to_datetime
from lavant.v1 import event_pb2

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


READERS["lavant.v1.EvaluationPlan"] = reader(data_of.EvaluationPlan, event_pb2.EvaluationPlan.DESCRIPTOR)
READERS["lavant.v1.ToolCall"] = reader(data_of.ToolCallRequest, event_pb2.ToolCall.DESCRIPTOR)
READERS["lavant.v1.MessagePart"] = reader(data_of.MessagePart, event_pb2.MessagePart.DESCRIPTOR)


def read_unknown(event: event_pb2.Event) -> data_of.UnknownPayload:
    """Return the payload of an event that this release does not know: the last of its unknown fields."""
    found = data_of.UnknownPayload()
    unknown = UnknownFieldSet(event)
    for field in map(unknown.__getitem__, range(len(unknown))):
        if isinstance(field.data, bytes):
            found = data_of.UnknownPayload(field_number=field.field_number, content=field.data)
    return found


_Data = TypeVar("_Data", bound="DataclassInstance")
_SHOWN = 98


def _shown_fields(payload: Message) -> Iterator[str]:
    """Yield a payload's fields for the repr. Ids come last, because they are long and say little."""
    for field, value in sorted(payload.ListFields(), key=lambda item: item[0].name.endswith("_id")):
        shown = repr(value[:_SHOWN]) if isinstance(value, str | bytes) else " ".join(str(value).split())
        if field.enum_type is not None and isinstance(value, int) and value in field.enum_type.values_by_number:
            prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
            shown = field.enum_type.values_by_number[value].name.removeprefix(prefix).lower()
        yield f"{field.name.removesuffix('_json')}={shown}"


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return to_jsonable_python(value, timedelta_mode="float", inf_nan_mode="null")


class _EventView(Generic[_Data]):
    """View of one event of a run's log. Copies and decodes nothing before it is read."""

    # Without an __init__ of its own, which would be most of what a view costs: `views` sets what it has.
    __slots__ = ("_read", "_token", "proto")
    type: str
    proto: event_pb2.Event
    _read: _Data | None
    _token: str

    @property
    def data(self) -> _Data:
        """Payload of the event: an immutable value, made on the first access."""
        data = self._read
        if data is None:
            self._read = data = _READ_DATA[self.type](getattr(self.proto, self.type))
        return data

    @property
    def sequence(self) -> int:
        """Position in the run's log: 1, 2, 3 and so on without gaps."""
        return self.proto.sequence

    @property
    def event_id(self) -> str:
        """Id chosen by the producer."""
        return self.proto.event_id

    @property
    def step_id(self) -> str:
        """Id of the innermost step that the event belongs to; empty for the run itself."""
        return self.proto.step_id

    @property
    def time(self) -> datetime:
        """Time of the event by the producer's clock, in UTC."""
        return to_datetime(self.proto.event_time)

    @property
    def resume_token(self) -> str:
        """Position after this event, where a new stream continues.

        Empty for an event that was not read from a stream.
        """
        return f"{self._token}~{self.proto.sequence}" if self._token else ""

    @property
    def attributes(self) -> Mapping[str, str]:
        """Key-value pairs that the producer has set."""
        return dict(self.proto.attributes)

    def to_dict(self) -> dict[str, Any]:
        r"""Return the event as a dict that any JSON library can write.

        It has `sequence`, `event_id`, `type`, `time`, `step_id`, `attributes` and `data`, a dict of the fields of
        `event.data`. Enums are their words, times ISO 8601 in UTC, durations seconds, bytes Base64; NaN and infinities
        are None.

        Example:
            async for event in client.runs.stream(run_id):
                log.write(json.dumps(event.to_dict()) + "\n")
        """
        data = {field.name: _plain(getattr(self.data, field.name)) for field in fields(self.data)}
        return {
            "sequence": self.sequence,
            "event_id": self.event_id,
            "type": self.type,
            "time": _plain(self.time),
            "step_id": self.step_id,
            "attributes": self.attributes,
            "data": data,
        }

    def to_json(self) -> str:
        """Return `to_dict()` as one line of ASCII JSON."""
        return json.dumps(self.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _EventView) and bool(self.proto == other.proto)

    def __hash__(self) -> int:
        return hash((self.proto.sequence, self.proto.event_id))

    def __getstate__(self) -> tuple[event_pb2.Event, str]:
        return self.proto, self._token

    def __setstate__(self, state: tuple[event_pb2.Event, str]) -> None:
        self.proto, self._token = state
        self._read = None

    def __repr__(self) -> str:
        payload = ", ".join(_shown_fields(getattr(self.proto, self.type))) if self.type in _DATA else ""
        whole = f"{type(self).__name__} {self.sequence}" + (f": {payload}" if payload else "")
        return f"<{whole}>" if len(whole) <= _SHOWN else f"<{whole[: _SHOWN - 3]}...>"


class RunStartedEvent(_EventView[data_of.RunStarted]):
    """The run has started. First event of every run."""

    __slots__ = ()
    type: Literal["run_started"] = "run_started"


class RunStateChangedEvent(_EventView[data_of.RunStateChanged]):
    """The run's state has changed, to one that is not terminal."""

    __slots__ = ()
    type: Literal["run_state_changed"] = "run_state_changed"


class RunFinishedEvent(_EventView[data_of.RunFinished]):
    """The run has ended. Last event of every run."""

    __slots__ = ()
    type: Literal["run_finished"] = "run_finished"


class StepStartedEvent(_EventView[data_of.StepStarted]):
    """A step has started: a nested agent, a model request, a tool, a step of a workflow."""

    __slots__ = ()
    type: Literal["step_started"] = "step_started"


class StepFinishedEvent(_EventView[data_of.StepFinished]):
    """A step has ended."""

    __slots__ = ()
    type: Literal["step_finished"] = "step_finished"


class MessageStartedEvent(_EventView[data_of.MessageStarted]):
    """A message has started."""

    __slots__ = ()
    type: Literal["message_started"] = "message_started"


class TextDeltaEvent(_EventView[data_of.TextDelta]):
    """Text was appended to a message."""

    __slots__ = ()
    type: Literal["text_delta"] = "text_delta"


class ReasoningDeltaEvent(_EventView[data_of.ReasoningDelta]):
    """Reasoning was appended to a message."""

    __slots__ = ()
    type: Literal["reasoning_delta"] = "reasoning_delta"


class ToolArgumentsDeltaEvent(_EventView[data_of.ToolArgumentsDelta]):
    """A part of a tool call's arguments, as the model generates them."""

    __slots__ = ()
    type: Literal["tool_arguments_delta"] = "tool_arguments_delta"


class MessageFinishedEvent(_EventView[data_of.MessageFinished]):
    """A message is complete."""

    __slots__ = ()
    type: Literal["message_finished"] = "message_finished"


class ToolCallStartedEvent(_EventView[data_of.ToolCallStarted]):
    """A tool was called."""

    __slots__ = ()
    type: Literal["tool_call_started"] = "tool_call_started"


class ToolOutputDeltaEvent(_EventView[data_of.ToolOutputDelta]):
    """Output was appended to a tool call."""

    __slots__ = ()
    type: Literal["tool_output_delta"] = "tool_output_delta"


class ToolCallFinishedEvent(_EventView[data_of.ToolCallFinished]):
    """A tool call has ended."""

    __slots__ = ()
    type: Literal["tool_call_finished"] = "tool_call_finished"


class ProgressReportedEvent(_EventView[data_of.ProgressReported]):
    """The run, or a step of it, has reported its progress."""

    __slots__ = ()
    type: Literal["progress_reported"] = "progress_reported"


class ErrorReportedEvent(_EventView[data_of.ErrorReported]):
    """An error that did not end the run."""

    __slots__ = ()
    type: Literal["error_reported"] = "error_reported"


class StateSnapshotEvent(_EventView[data_of.StateSnapshot]):
    """A whole state of the agent."""

    __slots__ = ()
    type: Literal["state_snapshot"] = "state_snapshot"


class StateDeltaEvent(_EventView[data_of.StateDelta]):
    """A change to a state of the agent."""

    __slots__ = ()
    type: Literal["state_delta"] = "state_delta"


class ArtifactUpdatedEvent(_EventView[data_of.ArtifactUpdated]):
    """An artifact was created or changed."""

    __slots__ = ()
    type: Literal["artifact_updated"] = "artifact_updated"


class InputRequestedEvent(_EventView[data_of.InputRequested]):
    """The run waits for input from outside."""

    __slots__ = ()
    type: Literal["input_requested"] = "input_requested"


class InputResolvedEvent(_EventView[data_of.InputResolved]):
    """The input has arrived."""

    __slots__ = ()
    type: Literal["input_resolved"] = "input_resolved"


class CustomEvent(_EventView[data_of.Custom]):
    """An event of the producer's own, under its own name."""

    __slots__ = ()
    type: Literal["custom"] = "custom"


class RowFinishedEvent(_EventView[data_of.RowFinished]):
    """A row of an evaluation was scored."""

    __slots__ = ()
    type: Literal["row_finished"] = "row_finished"


class ScoreRecordedEvent(_EventView[data_of.ScoreRecorded]):
    """A score of another run, recorded by an online evaluation."""

    __slots__ = ()
    type: Literal["score_recorded"] = "score_recorded"


class AlertChangedEvent(_EventView[data_of.AlertChanged]):
    """An alert has started or stopped firing."""

    __slots__ = ()
    type: Literal["alert_changed"] = "alert_changed"


class AuditRecordedEvent(_EventView[data_of.AuditRecorded]):
    """Calls were refused, or something was administered."""

    __slots__ = ()
    type: Literal["audit_recorded"] = "audit_recorded"


class UnknownEvent(_EventView[data_of.UnknownPayload]):
    """An event whose payload this release does not know, as bytes."""

    __slots__ = ()
    type: Literal["unknown"] = "unknown"

    @property
    def data(self) -> data_of.UnknownPayload:
        """The payload's field number in the contract, and its bytes."""
        return read_unknown(self.proto)


Event: TypeAlias = (
    RunStartedEvent
    | RunStateChangedEvent
    | RunFinishedEvent
    | StepStartedEvent
    | StepFinishedEvent
    | MessageStartedEvent
    | TextDeltaEvent
    | ReasoningDeltaEvent
    | ToolArgumentsDeltaEvent
    | MessageFinishedEvent
    | ToolCallStartedEvent
    | ToolOutputDeltaEvent
    | ToolCallFinishedEvent
    | ProgressReportedEvent
    | ErrorReportedEvent
    | StateSnapshotEvent
    | StateDeltaEvent
    | ArtifactUpdatedEvent
    | InputRequestedEvent
    | InputResolvedEvent
    | CustomEvent
    | RowFinishedEvent
    | ScoreRecordedEvent
    | AlertChangedEvent
    | AuditRecordedEvent
    | UnknownEvent
)


# The class of each type's data, as its view declares it.
_DATA: dict[str, Any] = {
    view.type: get_args(view.__orig_bases__[0])[0] for view in get_args(Event) if view is not UnknownEvent
}


class _DataReaders(dict[str, Any]):
    """Reader of each type's data, made when it is first needed: making all takes milliseconds of every import."""

    def __missing__(self, name: str) -> Any:
        made = self[name] = reader(_DATA[name], event_pb2.Event.DESCRIPTOR.fields_by_name[name].message_type)
        return made


_READ_DATA = _DataReaders()
_VIEWS: dict[str | None, type[Event]] = {view.type: view for view in get_args(Event)}
_VIEWS[None] = UnknownEvent


def views(protos: Iterable[event_pb2.Event], token: str = "") -> list[Event]:
    """Return the views of events. `token` is the resume token before their frame."""
    wrapped: list[Event] = []
    kind, last_name = _VIEWS[None], None
    for proto in protos:
        name = proto.WhichOneof("payload")
        if name != last_name:  # Neighbours are mostly of a kind, and a new string is dear to look up.
            kind, last_name = _VIEWS[name], name
        view = kind()
        view.proto, view._token, view._read = proto, token, None
        wrapped.append(view)
    return wrapped


def wrap(proto: event_pb2.Event) -> Event:
    """Return the view of an event."""
    return views((proto,))[0]
