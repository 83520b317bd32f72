"""Checks of what callers pass: each says in one line what is right."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.contract.limits import MAX_DURATION
from lavant.v1.event_pb2 import EventType, StepKind
from lavant.v1.run_pb2 import RunKind, RunState

_Choice = TypeVar("_Choice")

_TYPES = {name.removeprefix("EVENT_TYPE_").lower(): number for name, number in EventType.items() if number}
_STEP_KINDS = {name.removeprefix("STEP_KIND_").lower(): number for name, number in StepKind.items() if number}
_RUN_KINDS = {name.removeprefix("RUN_KIND_").lower(): number for name, number in RunKind.items() if number}
_RUN_STATES = {name.removeprefix("RUN_STATE_").lower(): number for name, number in RunState.items() if number}


def choose(name: str, value: object, allowed: Mapping[str, _Choice]) -> _Choice:
    """Return what an argument stands for. Raises ValueError for one that stands for nothing."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return allowed[value]


def check_seconds(name: str, value: float) -> float:
    """Return an argument that is a number of seconds.

    Raises TypeError for what is no number, ValueError for one that is negative, not finite, or
    beyond a Duration.
    """
    message = f"{name} must be a number of seconds, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(message)
    if not isfinite(value) or not 0 <= value <= MAX_DURATION:
        raise ValueError(message)
    return value


def check_optional_seconds(name: str, value: float | None) -> float | None:
    """Return an argument that is a number of seconds, or None. Raises as `check_seconds` does."""
    return None if value is None else check_seconds(name, value)


def duration(seconds: float) -> Duration:
    """Write seconds as a Duration: none for what is negative or no number, the longest for what is longer."""
    if not seconds > 0:
        return Duration()
    seconds = min(seconds, MAX_DURATION)
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def exact_duration(time: timedelta | None) -> Duration | None:
    """Write a length of time as a Duration."""
    if time is None:
        return None
    written = Duration()
    written.FromTimedelta(time)
    return written


def timestamp(name: str, time: datetime | None) -> Timestamp | None:
    """Write an argument that is a point in time. Raises ValueError for one that has no time zone."""
    if time is None:
        return None
    if not isinstance(time, datetime):
        raise TypeError(f"{name} must be a datetime, not {time!r}")
    if time.utcoffset() is None:
        raise ValueError(
            f"{name} must have a time zone, not {time!r}: use datetime.now(UTC), or time.astimezone() for a local time"
        )
    written = Timestamp()
    written.FromDatetime(time)
    return written


def several(name: str, words: Iterable[str]) -> list[str]:
    """Return an argument that is several words. Raises ValueError for one str in place of several."""
    if isinstance(words, str):
        raise ValueError(f"{name} must be several words, as in [{words!r}], not {words!r}")  # noqa: TRY004
    return list(words)


def text_labels(labels: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return an argument that maps names to values. Raises TypeError for what is no mapping of text to text."""
    if labels is not None and not isinstance(labels, Mapping):
        raise TypeError(f"labels must be a mapping, as in {{'team': 'weather'}}, not {labels!r}")
    for name, value in (labels or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"labels must map text to text, not {name!r} to {value!r}")
    return labels


def event_types(names: Iterable[str]) -> "tuple[EventType.ValueType, ...]":
    """Number event types: `text_delta` is EVENT_TYPE_TEXT_DELTA. Raises ValueError for one that does not exist."""
    if isinstance(names, str):
        raise ValueError("types must be several names, not one string")  # noqa: TRY004
    return tuple(choose("types", name, _TYPES) for name in names)


def step_kind(name: str) -> "StepKind.ValueType":
    """Number a kind of step: `model_request` is STEP_KIND_MODEL_REQUEST. Raises ValueError for an unknown one."""
    return choose("kind", name, _STEP_KINDS)


def run_kind(name: str, argument: str = "kind") -> "RunKind.ValueType":
    """Number a kind of run: `agent` is RUN_KIND_AGENT. Raises ValueError for an unknown one."""
    return choose(argument, name, _RUN_KINDS)


def run_state(name: str, argument: str = "state") -> "RunState.ValueType":
    """Number a state: `timed_out` is RUN_STATE_TIMED_OUT. Raises ValueError for an unknown one."""
    return choose(argument, name, _RUN_STATES)
