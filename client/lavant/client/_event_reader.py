"""From the contract's payloads to the values that people read: one rule for all of them. Pure."""

from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from lavant.client import _event_data as data
from lavant.client import _json
from lavant.client._models import ErrorInfo, EvaluationSummary, Usage, to_datetime, to_timedelta
from lavant.client._rows import Score
from lavant.client._rules import EvaluatorInfo
from lavant.client._states import outcome_of, role_of, state_of, step_kind_of
from lavant.v1.event_pb2 import Event

_Data = TypeVar("_Data")
_Read = Callable[[Any], Any]
_JSON = "_json"

_ENUMS: dict[str, _Read] = {
    "lavant.v1.RunState": state_of,
    "lavant.v1.StepKind": step_kind_of,
    "lavant.v1.Role": role_of,
    "lavant.v1.ToolCallOutcome": outcome_of,
}
_MESSAGES: dict[str, _Read] = {
    "google.protobuf.Duration": to_timedelta,
    "google.protobuf.Timestamp": to_datetime,
    "lavant.v1.Error": ErrorInfo.from_proto,
    "lavant.v1.TokenUsage": Usage.from_proto,
    "lavant.v1.EvaluationSummary": EvaluationSummary.from_proto,
    "lavant.v1.Evaluator": EvaluatorInfo.from_proto,
    "lavant.v1.Score": Score.from_proto,
    "lavant.v1.EvaluationPlan": lambda plan: read(data.EvaluationPlan, plan),
    "lavant.v1.MessagePart": lambda part: read(data.MessagePart, part),
    "lavant.v1.ToolCall": lambda call: read(data.ToolCallRequest, call),
}


def read(kind: type[_Data], message: Message) -> _Data:
    """Make a value of a message. What the message lacks has the value's own default."""
    values = {}
    for name, proto_name, has_presence, convert in _plan(cast("Hashable", kind), message.DESCRIPTOR):
        if not has_presence or message.HasField(proto_name):
            value = getattr(message, proto_name)
            values[name] = value if convert is None else convert(value)
    return kind(**values)


def read_unknown(event: Event) -> data.UnknownPayload:
    """Return the payload of an event that this release does not know: the last of its unknown fields."""
    found = data.UnknownPayload()
    unknown = UnknownFieldSet(event)
    for field in map(unknown.__getitem__, range(len(unknown))):
        if isinstance(field.data, bytes):
            found = data.UnknownPayload(field_number=field.field_number, content=field.data)
    return found


@cache
def _plan(kind: Hashable, descriptor: Descriptor) -> list[tuple[str, str, bool, _Read | None]]:
    """Say for each field of a value: its name, the contract's name, whether that may be absent, how to convert."""
    plan = []
    for field in fields(cast("type[Any]", kind)):
        found = descriptor.fields_by_name.get(field.name) or descriptor.fields_by_name[field.name + _JSON]
        plan.append((field.name, found.name, found.has_presence, _converter(found)))
    return plan


def _converter(field: FieldDescriptor) -> _Read | None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return dict
    if entry is not None:
        one = _MESSAGES[entry.full_name]
    elif field.enum_type is not None:
        one = _ENUMS[field.enum_type.full_name]
    elif field.name.endswith(_JSON):
        one = _json.decode
    else:
        return tuple if field.is_repeated else None
    return (lambda several: tuple(map(one, several))) if field.is_repeated else one
