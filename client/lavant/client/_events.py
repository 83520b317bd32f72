"""Events as people read them: thin typed views over the contract's messages.

`if event.type == "text_delta":` tells a type checker that `event.data` is a TextDelta.

Example:
    async for event in client.runs.stream(run_id):
        match event.type:
            case "text_delta":
                print(event.data.text, end="")
            case "tool_call_started":
                print(event.data.call.tool_name)
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Generic, Literal, TypeAlias, TypeVar, get_args

from google.protobuf.message import Message

from lavant.client._models import to_datetime
from lavant.v1 import event_pb2, run_pb2

_Payload = TypeVar("_Payload", bound=Message | None)
_SHOWN = 98


def _fields(payload: Message) -> Iterator[str]:
    """Write a payload's fields for people, those that are ids last: they are long, and say little."""
    for field, value in sorted(payload.ListFields(), key=lambda item: item[0].name.endswith("_id")):
        shown = repr(value[:_SHOWN]) if isinstance(value, str | bytes) else " ".join(str(value).split())
        if field.enum_type is not None and isinstance(value, int) and value in field.enum_type.values_by_number:
            shown = field.enum_type.values_by_number[value].name
        yield f"{field.name}={shown}"


class _EventView(Generic[_Payload]):
    """One record of a run's log. Reading a field reads the message: nothing is copied."""

    # Without an __init__ of its own, which would be most of what a view costs: `views` sets this.
    __slots__ = ("proto",)
    type: str
    proto: event_pb2.Event

    @property
    def data(self) -> _Payload:
        """What happened."""
        payload: _Payload = getattr(self.proto, self.type)
        return payload

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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _EventView) and bool(self.proto == other.proto)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        payload = ", ".join(_fields(self.data)) if self.data is not None else ""
        whole = f"{type(self).__name__} {self.sequence}" + (f": {payload}" if payload else "")
        return f"<{whole}>" if len(whole) <= _SHOWN else f"<{whole[: _SHOWN - 3]}...>"


class RunStartedEvent(_EventView[event_pb2.RunStarted]):
    """The run is at work. First event of every run."""

    __slots__ = ()
    type: Literal["run_started"] = "run_started"


class RunStateChangedEvent(_EventView[event_pb2.RunStateChanged]):
    """The run changed to a state that is not terminal."""

    __slots__ = ()
    type: Literal["run_state_changed"] = "run_state_changed"


class RunFinishedEvent(_EventView[run_pb2.RunFinished]):
    """The run ended. Last event of every run."""

    __slots__ = ()
    type: Literal["run_finished"] = "run_finished"


class StepStartedEvent(_EventView[event_pb2.StepStarted]):
    """A unit of work began: a nested agent, a model request, a tool, a workflow step."""

    __slots__ = ()
    type: Literal["step_started"] = "step_started"


class StepFinishedEvent(_EventView[event_pb2.StepFinished]):
    """That unit ended."""

    __slots__ = ()
    type: Literal["step_finished"] = "step_finished"


class MessageStartedEvent(_EventView[event_pb2.MessageStarted]):
    """A model or a person begins to speak."""

    __slots__ = ()
    type: Literal["message_started"] = "message_started"


class TextDeltaEvent(_EventView[event_pb2.TextDelta]):
    """More of a message's text."""

    __slots__ = ()
    type: Literal["text_delta"] = "text_delta"


class ReasoningDeltaEvent(_EventView[event_pb2.ReasoningDelta]):
    """More of a model's reasoning."""

    __slots__ = ()
    type: Literal["reasoning_delta"] = "reasoning_delta"


class ToolArgumentsDeltaEvent(_EventView[event_pb2.ToolArgumentsDelta]):
    """More of a tool call's arguments, as the model writes them."""

    __slots__ = ()
    type: Literal["tool_arguments_delta"] = "tool_arguments_delta"


class MessageFinishedEvent(_EventView[event_pb2.MessageFinished]):
    """The message is whole."""

    __slots__ = ()
    type: Literal["message_finished"] = "message_finished"


class ToolCallStartedEvent(_EventView[event_pb2.ToolCallStarted]):
    """A tool is called."""

    __slots__ = ()
    type: Literal["tool_call_started"] = "tool_call_started"


class ToolOutputDeltaEvent(_EventView[event_pb2.ToolOutputDelta]):
    """More of a tool's output."""

    __slots__ = ()
    type: Literal["tool_output_delta"] = "tool_output_delta"


class ToolCallFinishedEvent(_EventView[event_pb2.ToolCallFinished]):
    """The tool is done."""

    __slots__ = ()
    type: Literal["tool_call_finished"] = "tool_call_finished"


class ProgressReportedEvent(_EventView[event_pb2.ProgressReported]):
    """How far the run is."""

    __slots__ = ()
    type: Literal["progress_reported"] = "progress_reported"


class ErrorReportedEvent(_EventView[event_pb2.ErrorReported]):
    """Something went wrong that did not end the run."""

    __slots__ = ()
    type: Literal["error_reported"] = "error_reported"


class StateSnapshotEvent(_EventView[event_pb2.StateSnapshot]):
    """The whole of a state that readers may rebuild."""

    __slots__ = ()
    type: Literal["state_snapshot"] = "state_snapshot"


class StateDeltaEvent(_EventView[event_pb2.StateDelta]):
    """A change to that state."""

    __slots__ = ()
    type: Literal["state_delta"] = "state_delta"


class ArtifactUpdatedEvent(_EventView[event_pb2.ArtifactUpdated]):
    """A file or another artifact came to be, or grew."""

    __slots__ = ()
    type: Literal["artifact_updated"] = "artifact_updated"


class InputRequestedEvent(_EventView[event_pb2.InputRequested]):
    """The run needs an answer from outside."""

    __slots__ = ()
    type: Literal["input_requested"] = "input_requested"


class InputResolvedEvent(_EventView[event_pb2.InputResolved]):
    """The answer came."""

    __slots__ = ()
    type: Literal["input_resolved"] = "input_resolved"


class CustomEvent(_EventView[event_pb2.CustomEvent]):
    """What no other payload says."""

    __slots__ = ()
    type: Literal["custom"] = "custom"


class RowFinishedEvent(_EventView[event_pb2.RowFinished]):
    """One row of an evaluation is scored."""

    __slots__ = ()
    type: Literal["row_finished"] = "row_finished"


class ScoreRecordedEvent(_EventView[event_pb2.ScoreRecorded]):
    """A score on another run, recorded by an online evaluation."""

    __slots__ = ()
    type: Literal["score_recorded"] = "score_recorded"


class SamplesDrawnEvent(_EventView[event_pb2.SamplesDrawn]):
    """Finished runs were looked at, and some drawn to be judged."""

    __slots__ = ()
    type: Literal["samples_drawn"] = "samples_drawn"


class SamplesLeasedEvent(_EventView[event_pb2.SamplesLeased]):
    """A worker has samples to judge, or has them for longer."""

    __slots__ = ()
    type: Literal["samples_leased"] = "samples_leased"


class SampleReturnedEvent(_EventView[event_pb2.SampleReturned]):
    """A sample waits to be judged by somebody else, or again."""

    __slots__ = ()
    type: Literal["sample_returned"] = "sample_returned"


class AlertChangedEvent(_EventView[event_pb2.AlertChanged]):
    """Scores left their bounds, or are back."""

    __slots__ = ()
    type: Literal["alert_changed"] = "alert_changed"


class UnknownEvent(_EventView[None]):
    """A payload that this release does not know. The message still holds it."""

    __slots__ = ()
    type: Literal["unknown"] = "unknown"

    @property
    def data(self) -> None:
        """Nothing that could be read."""
        return


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


_VIEWS: dict[str | None, type[Event]] = {view.type: view for view in get_args(Event)}
_VIEWS[None] = UnknownEvent


def views(protos: Iterable[event_pb2.Event]) -> list[Event]:
    """Return the views that fit the events' payloads."""
    wrapped: list[Event] = []
    kind, last_name = _VIEWS[None], None
    for proto in protos:
        name = proto.WhichOneof("payload")
        if name != last_name:  # Neighbours are mostly of a kind, and a new string is dear to look up.
            kind, last_name = _VIEWS[name], name
        view = kind()
        view.proto = proto
        wrapped.append(view)
    return wrapped


def wrap(proto: event_pb2.Event) -> Event:
    """Return the view that fits an event's payload."""
    return views((proto,))[0]
