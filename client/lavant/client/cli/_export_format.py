"""The lines of an export: one for a run, then one for each of its events.

A run's line is `{"lavant": "export/1", "run": {...}}`; an event's is the event itself. Both are
protobuf's JSON mapping with the contract's field names. What that mapping cannot say, such as fields of
a newer server, is kept in `@serialized`: the message's bytes in base64, which then count alone.
"""

import base64
import json
from typing import Any, TypeVar

from google.protobuf.json_format import Error, MessageToDict, ParseDict
from google.protobuf.message import DecodeError, Message

from lavant.client.cli._untrusted import neutral_json
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run

VERSION = "export/1"
OWN_RUNS = "lavant."  # run ids of a server's own runs begin so; none can be created
_VERSION_KEY = "lavant"
_SERIALIZED = "@serialized"
_Message = TypeVar("_Message", bound=Message)


class DamagedLine(ValueError):
    """A line that is none of an export; the text says why."""


def run_line(run: Run) -> str:
    """Write the line that a run's events follow."""
    return _dump({_VERSION_KEY: VERSION, "run": _encode(run)})


def event_line(event: Event) -> str:
    """Write an event's line."""
    return _dump(_encode(event))


def read_line(line: bytes) -> Run | Event:
    """Read a line. Raises DamagedLine."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DamagedLine(f"is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise DamagedLine("is not a JSON object")
    if _VERSION_KEY not in record:
        return _decode(record, Event())
    if record[_VERSION_KEY] != VERSION:
        raise DamagedLine(f"is of format {record[_VERSION_KEY]!r}, not {VERSION}; use a newer lavant")
    return _decode(record.get("run"), Run())


def _dump(record: dict[str, Any]) -> str:
    return neutral_json(json.dumps(record, ensure_ascii=False, separators=(",", ":")))


def _encode(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {}
    try:
        record = MessageToDict(message, preserving_proto_field_name=True)
        is_whole = ParseDict(record, type(message)()) == message
    except (Error, ValueError):
        is_whole = False
    if not is_whole:
        record[_SERIALIZED] = base64.b64encode(message.SerializeToString()).decode()
    return record


def _decode(record: Any, message: _Message) -> _Message:
    if not isinstance(record, dict):
        raise DamagedLine("has no run")
    try:
        if _SERIALIZED in record:
            message.ParseFromString(base64.b64decode(record[_SERIALIZED], validate=True))
        else:
            ParseDict(record, message)
    except (Error, DecodeError, ValueError, TypeError) as error:
        raise DamagedLine(f"is no {type(message).__name__}: {error}") from None
    return message
