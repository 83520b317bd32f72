"""Checks of arguments. Each error names the argument, the offending value and the allowed ones."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.client.states import RunKind, RunState, StepKind
from lavant.contract.limits import MAX_DURATION
from lavant.v1.event_pb2 import EventType
from lavant.v1.run_service_pb2 import RunFilter

_Choice = TypeVar("_Choice")

_TYPES = {name.removeprefix("EVENT_TYPE_").lower(): number for name, number in EventType.items() if number}


def choose(name: str, value: object, allowed: Mapping[str, _Choice]) -> _Choice:
    """Return what a word stands for. Raises ValueError for another word."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return allowed[value]


def check_seconds(name: str, value: float) -> float:
    """Return a number of seconds.

    Raises TypeError for another type, ValueError for a number that is negative, not finite, or beyond a Duration.
    """
    message = f"{name} must be a number of seconds, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(message)
    if not isfinite(value) or not 0 <= value <= MAX_DURATION:
        raise ValueError(message)
    return value


def check_optional_seconds(name: str, value: float | None) -> float | None:
    """Return a number of seconds, or None. Raises like `check_seconds`."""
    return None if value is None else check_seconds(name, value)


def duration(seconds: float) -> Duration:
    """Return a Duration of seconds, limited to what it can hold; zero for NaN and negative numbers."""
    if not seconds > 0:
        return Duration()
    seconds = min(seconds, MAX_DURATION)
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def exact_duration(time: timedelta | None) -> Duration | None:
    """Return a Duration of a timedelta."""
    if time is None:
        return None
    written = Duration()
    written.FromTimedelta(time)
    return written


def timestamp(name: str, time: datetime | None) -> Timestamp | None:
    """Return a Timestamp of a datetime. Raises ValueError without a time zone."""
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
    """Return a list of words. Raises ValueError for a single str."""
    if isinstance(words, str):
        raise ValueError(f"{name} must be several words, as in [{words!r}], not {words!r}")  # noqa: TRY004
    return list(words)


def text_labels(labels: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return labels. Raises TypeError unless they map str to str."""
    if labels is not None and not isinstance(labels, Mapping):
        raise TypeError(f"labels must be a mapping, as in {{'team': 'weather'}}, not {labels!r}")
    for name, value in (labels or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"labels must map text to text, not {name!r} to {value!r}")
    return labels


def event_types(names: Iterable[str]) -> "tuple[EventType.ValueType, ...]":
    """Return the numbers of event types. Raises ValueError for an unknown one."""
    if isinstance(names, str):
        raise ValueError("types must be several names, not one string")  # noqa: TRY004
    return tuple(choose("types", name, _TYPES) for name in names)


def step_kind(name: str) -> Any:
    """Return the number of a kind of step. Raises ValueError for an unknown one."""
    return choose("kind", name, StepKind.numbers())


def run_kind(name: str, argument: str = "kind") -> Any:
    """Return the number of a kind of run. Raises ValueError for an unknown one."""
    return choose(argument, name, RunKind.numbers())


def run_state(name: str, argument: str = "state") -> Any:
    """Return the number of a state. Raises ValueError for an unknown one."""
    return choose(argument, name, RunState.numbers())


def run_filter(
    *,
    kinds: Iterable[str] = (),
    states: Iterable[str] = (),
    names: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    conversation_id: str = "",
    parent_run_id: str = "",
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    include_system_runs: bool = False,
) -> RunFilter:
    """Return a filter of runs. Raises ValueError for an unknown kind or state, and for a single str."""
    return RunFilter(
        kinds=[run_kind(kind, "kinds") for kind in several("kinds", kinds)],
        states=[run_state(state, "states") for state in several("states", states)],
        names=several("names", names),
        labels=text_labels(labels),
        conversation_id=conversation_id,
        parent_run_id=parent_run_id,
        created_after=timestamp("created_after", created_after),
        created_before=timestamp("created_before", created_before),
        include_system_runs=include_system_runs,
    )
