"""Events as people read them: thin typed views over the contract's messages.

`if event.type == "text_delta":` tells a type checker that `event.data` is a TextDelta: an
immutable value whose JSON is decoded and whose enums compare with their words.

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
from pydantic_core import to_jsonable_python

from lavant.client import _event_data as data_of
from lavant.client._event_reader import read, read_unknown
from lavant.client._models import to_datetime
from lavant.v1 import event_pb2

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Data = TypeVar("_Data", bound="DataclassInstance")
_SHOWN = 98


def _shown_fields(payload: Message) -> Iterator[str]:
    """Write a payload's fields for people, those that are ids last: they are long, and say little."""
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
    """One record of a run's log. Nothing is copied or decoded before it is read."""

    # Without an __init__ of its own, which would be most of what a view costs: `views` sets what it has.
    __slots__ = ("_read", "_token", "proto")
    type: str
    proto: event_pb2.Event
    _read: _Data
    _token: str

    @property
    def data(self) -> _Data:
        """What happened: an immutable value, made when it is asked for the first time."""
        try:
            return self._read
        except AttributeError:
            data: _Data = read(_DATA[self.type], getattr(self.proto, self.type))
            self._read = data
            return data

    @property
    def sequence(self) -> int:
        """Its position in the run's log: 1, 2, 3 ..."""
        return self.proto.sequence

    @property
    def event_id(self) -> str:
        """Chosen by the producer, unique within the run."""
        return self.proto.event_id

    @property
    def step_id(self) -> str:
        """The innermost open step that it belongs to; empty: the run itself."""
        return self.proto.step_id

    @property
    def time(self) -> datetime:
        """When it happened, by the producer's clock, in UTC."""
        return to_datetime(self.proto.event_time)

    @property
    def resume_token(self) -> str:
        """Where a stream continues behind this very event; empty if no stream handed it out."""
        return f"{self._token}~{self.proto.sequence}" if self._token else ""

    @property
    def attributes(self) -> Mapping[str, str]:
        """Free key-value pairs of the producer's."""
        return dict(self.proto.attributes)

    def to_dict(self) -> dict[str, Any]:
        r"""Return the event as a dict that any JSON library can write.

        It has `sequence`, `event_id`, `type`, `time`, `step_id`, `attributes` and `data`, which is a dict of the
        fields of `event.data`. Enums are their words, times ISO 8601 in UTC, durations seconds, bytes Base64; numbers
        that JSON does not have are None.

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
        """Return `to_dict()` as JSON text on one line, in ASCII."""
        return json.dumps(self.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _EventView) and bool(self.proto == other.proto)

    def __hash__(self) -> int:
        return hash((self.proto.sequence, self.proto.event_id))

    def __getstate__(self) -> tuple[event_pb2.Event, str]:
        return self.proto, self._token

    def __setstate__(self, state: tuple[event_pb2.Event, str]) -> None:
        self.proto, self._token = state

    def __repr__(self) -> str:
        payload = ", ".join(_shown_fields(getattr(self.proto, self.type))) if self.type in _DATA else ""
        whole = f"{type(self).__name__} {self.sequence}" + (f": {payload}" if payload else "")
        return f"<{whole}>" if len(whole) <= _SHOWN else f"<{whole[: _SHOWN - 3]}...>"


class RunStartedEvent(_EventView[data_of.RunStarted]):
    """The run is at work. First event of every run."""

    __slots__ = ()
    type: Literal["run_started"] = "run_started"


class RunStateChangedEvent(_EventView[data_of.RunStateChanged]):
    """The run changed to a state that is not terminal."""

    __slots__ = ()
    type: Literal["run_state_changed"] = "run_state_changed"


class RunFinishedEvent(_EventView[data_of.RunFinished]):
    """The run ended. Last event of every run."""

    __slots__ = ()
    type: Literal["run_finished"] = "run_finished"


class StepStartedEvent(_EventView[data_of.StepStarted]):
    """A unit of work began: a nested agent, a model request, a tool, a workflow step."""

    __slots__ = ()
    type: Literal["step_started"] = "step_started"


class StepFinishedEvent(_EventView[data_of.StepFinished]):
    """That unit ended."""

    __slots__ = ()
    type: Literal["step_finished"] = "step_finished"


class MessageStartedEvent(_EventView[data_of.MessageStarted]):
    """A model or a person begins to speak."""

    __slots__ = ()
    type: Literal["message_started"] = "message_started"


class TextDeltaEvent(_EventView[data_of.TextDelta]):
    """More of a message's text."""

    __slots__ = ()
    type: Literal["text_delta"] = "text_delta"


class ReasoningDeltaEvent(_EventView[data_of.ReasoningDelta]):
    """More of a model's reasoning."""

    __slots__ = ()
    type: Literal["reasoning_delta"] = "reasoning_delta"


class ToolArgumentsDeltaEvent(_EventView[data_of.ToolArgumentsDelta]):
    """More of a tool call's arguments, as the model writes them."""

    __slots__ = ()
    type: Literal["tool_arguments_delta"] = "tool_arguments_delta"


class MessageFinishedEvent(_EventView[data_of.MessageFinished]):
    """The message is whole."""

    __slots__ = ()
    type: Literal["message_finished"] = "message_finished"


class ToolCallStartedEvent(_EventView[data_of.ToolCallStarted]):
    """A tool is called."""

    __slots__ = ()
    type: Literal["tool_call_started"] = "tool_call_started"


class ToolOutputDeltaEvent(_EventView[data_of.ToolOutputDelta]):
    """More of a tool's output."""

    __slots__ = ()
    type: Literal["tool_output_delta"] = "tool_output_delta"


class ToolCallFinishedEvent(_EventView[data_of.ToolCallFinished]):
    """The tool is done."""

    __slots__ = ()
    type: Literal["tool_call_finished"] = "tool_call_finished"


class ProgressReportedEvent(_EventView[data_of.ProgressReported]):
    """How far the run is."""

    __slots__ = ()
    type: Literal["progress_reported"] = "progress_reported"


class ErrorReportedEvent(_EventView[data_of.ErrorReported]):
    """Something went wrong that did not end the run."""

    __slots__ = ()
    type: Literal["error_reported"] = "error_reported"


class StateSnapshotEvent(_EventView[data_of.StateSnapshot]):
    """The whole of a state that readers may rebuild."""

    __slots__ = ()
    type: Literal["state_snapshot"] = "state_snapshot"


class StateDeltaEvent(_EventView[data_of.StateDelta]):
    """A change to that state."""

    __slots__ = ()
    type: Literal["state_delta"] = "state_delta"


class ArtifactUpdatedEvent(_EventView[data_of.ArtifactUpdated]):
    """A file or another artifact came to be, or grew."""

    __slots__ = ()
    type: Literal["artifact_updated"] = "artifact_updated"


class InputRequestedEvent(_EventView[data_of.InputRequested]):
    """The run needs an answer from outside."""

    __slots__ = ()
    type: Literal["input_requested"] = "input_requested"


class InputResolvedEvent(_EventView[data_of.InputResolved]):
    """The answer came."""

    __slots__ = ()
    type: Literal["input_resolved"] = "input_resolved"


class CustomEvent(_EventView[data_of.Custom]):
    """What no other payload says."""

    __slots__ = ()
    type: Literal["custom"] = "custom"


class RowFinishedEvent(_EventView[data_of.RowFinished]):
    """One row of an evaluation is scored."""

    __slots__ = ()
    type: Literal["row_finished"] = "row_finished"


class ScoreRecordedEvent(_EventView[data_of.ScoreRecorded]):
    """A score on another run, recorded by an online evaluation."""

    __slots__ = ()
    type: Literal["score_recorded"] = "score_recorded"


class SamplesDrawnEvent(_EventView[data_of.SamplesDrawn]):
    """Finished runs were looked at, and some drawn to be judged."""

    __slots__ = ()
    type: Literal["samples_drawn"] = "samples_drawn"


class SamplesLeasedEvent(_EventView[data_of.SamplesLeased]):
    """A worker has samples to judge, or has them for longer."""

    __slots__ = ()
    type: Literal["samples_leased"] = "samples_leased"


class SampleReturnedEvent(_EventView[data_of.SampleReturned]):
    """A sample waits to be judged by somebody else, or again."""

    __slots__ = ()
    type: Literal["sample_returned"] = "sample_returned"


class AlertChangedEvent(_EventView[data_of.AlertChanged]):
    """Scores left their bounds, or are back."""

    __slots__ = ()
    type: Literal["alert_changed"] = "alert_changed"


class UnknownEvent(_EventView[data_of.UnknownPayload]):
    """A payload that this release does not know, as its bytes."""

    __slots__ = ()
    type: Literal["unknown"] = "unknown"

    @property
    def data(self) -> data_of.UnknownPayload:
        """The payload's field in the contract, and its bytes."""
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
    | SamplesDrawnEvent
    | SamplesLeasedEvent
    | SampleReturnedEvent
    | AlertChangedEvent
    | UnknownEvent
)


# The class of each type's data, as its view declares it.
_DATA: dict[str, Any] = {
    view.type: get_args(view.__orig_bases__[0])[0] for view in get_args(Event) if view is not UnknownEvent
}
_VIEWS: dict[str | None, type[Event]] = {view.type: view for view in get_args(Event)}
_VIEWS[None] = UnknownEvent


def views(protos: Iterable[event_pb2.Event], token: str = "") -> list[Event]:
    """Return the views that fit the events' payloads. `token` is where the frame that they came in began."""
    wrapped: list[Event] = []
    kind, last_name = _VIEWS[None], None
    for proto in protos:
        name = proto.WhichOneof("payload")
        if name != last_name:  # Neighbours are mostly of a kind, and a new string is dear to look up.
            kind, last_name = _VIEWS[name], name
        view = kind()
        view.proto, view._token = proto, token
        wrapped.append(view)
    return wrapped


def wrap(proto: event_pb2.Event) -> Event:
    """Return the view that fits an event's payload."""
    return views((proto,))[0]
