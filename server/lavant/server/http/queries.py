"""What a URL asks for, as the contract's requests. Each parameter that is not known is refused by its name."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.datastructures import QueryParams

from lavant.server.errors import invalid_field
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import DeltaMode, ListEventsRequest, StartPosition, StopPosition, StreamEventsRequest
from lavant.v1.run_pb2 import RunKind, RunState
from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter, WatchRunsRequest

_Value = TypeVar("_Value")

_NUMBER = re.compile(r"[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_FILTER = {
    "kind", "state", "name", "label", "conversation_id", "parent_run_id", "created_after", "created_before",
}  # fmt: skip
_PAGE = {"page_size", "page_token"}
_STREAM = {
    "consumer", "session", "take_over", "last_event_id", "deltas", "type", "start", "stop", "idle_timeout",
    "heartbeat_interval",
}  # fmt: skip


def list_runs(query: QueryParams) -> ListRunsRequest:
    """Read what a list of runs is asked for."""
    _check_names(query, _FILTER | _PAGE)
    return ListRunsRequest(
        filter=_filter(query), page_size=_number(query, "page_size"), page_token=_one(query, "page_token")
    )


def watch_runs(query: QueryParams, last_event_id: str) -> WatchRunsRequest:
    """Read what a watch of runs is asked for."""
    _check_names(query, _FILTER | {"last_event_id"})
    return WatchRunsRequest(filter=_filter(query), resume_token=last_event_id)


def list_events(query: QueryParams, run_id: str) -> ListEventsRequest:
    """Read what a list of events is asked for."""
    _check_names(query, _PAGE | {"type"})
    return ListEventsRequest(
        run_id=run_id,
        page_size=_number(query, "page_size"),
        page_token=_one(query, "page_token"),
        types=_enums(query, "type", EventType.items(), "EVENT_TYPE_"),
    )


def stream_events(query: QueryParams, run_id: str) -> StreamEventsRequest:
    """Read what a stream of events is asked for; where it continues is for the caller to set."""
    _check_names(query, _STREAM)
    return StreamEventsRequest(
        run_id=run_id,
        consumer_id=_one(query, "consumer"),
        session_id=_one(query, "session"),
        take_over=_choice(query, "take_over", {"": False, "false": False, "true": True}),
        deltas=_enum(query, "deltas", DeltaMode.items(), "DELTA_MODE_"),
        types=_enums(query, "type", EventType.items(), "EVENT_TYPE_"),
        start=_enum(query, "start", StartPosition.items(), "START_POSITION_"),
        stop=_enum(query, "stop", StopPosition.items(), "STOP_POSITION_"),
        idle_timeout=_duration(query, "idle_timeout"),
        heartbeat_interval=_duration(query, "heartbeat_interval"),
    )


def last_event_id(query: QueryParams) -> str:
    """Read where a reader was that cannot set headers."""
    return _one(query, "last_event_id")


def _filter(query: QueryParams) -> RunFilter:
    return RunFilter(
        kinds=_enums(query, "kind", RunKind.items(), "RUN_KIND_"),
        states=_enums(query, "state", RunState.items(), "RUN_STATE_"),
        names=[name for name in query.getlist("name") if name],
        labels=_labels(query),
        conversation_id=_one(query, "conversation_id"),
        parent_run_id=_one(query, "parent_run_id"),
        created_after=_time(query, "created_after"),
        created_before=_time(query, "created_before"),
    )


def _check_names(query: QueryParams, known: set[str]) -> None:
    for name in query:
        if name not in known:
            raise invalid_field(name, f"is no parameter of this; there are {', '.join(sorted(known))}")


def _one(query: QueryParams, name: str) -> str:
    values = query.getlist(name)
    if len(values) > 1:
        raise invalid_field(name, "may be given once")
    return values[0] if values else ""


def _number(query: QueryParams, name: str) -> int:
    value = _one(query, name)
    if value and not _NUMBER.fullmatch(value):
        raise invalid_field(name, "must be a whole number")
    return int(value or 0)


def _duration(query: QueryParams, name: str) -> Duration | None:
    value = _one(query, name)
    if not value:
        return None
    if not _SECONDS.fullmatch(value):
        raise invalid_field(name, "must be a number of seconds")
    result = Duration()
    result.FromNanoseconds(round(float(value) * 1e9))
    return result


def _time(query: QueryParams, name: str) -> Timestamp | None:
    value = _one(query, name)
    if not value:
        return None
    result = Timestamp()
    try:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(value)
        result.FromJsonString(value)
    except ValueError:
        raise invalid_field(name, "must be a time as RFC 3339 has it, such as 2026-05-04T10:00:00Z") from None
    return result


def _labels(query: QueryParams) -> dict[str, str]:
    found: dict[str, str] = {}
    for label in filter(None, query.getlist("label")):
        name, equals, value = label.partition("=")
        if not equals or not name:
            raise invalid_field("label", "must be NAME=VALUE")
        if found.setdefault(name, value) != value:
            raise invalid_field("label", f"asks for two values of {name}; a run has one")
    return found


def _choice(query: QueryParams, name: str, known: Mapping[str, _Value]) -> _Value:
    value = _one(query, name)
    if value not in known:
        raise invalid_field(name, f"must be one of {', '.join(filter(None, known))}")
    return known[value]


def _enum(query: QueryParams, name: str, items: Iterable[tuple[str, Any]], prefix: str) -> Any:
    return _choice(query, name, {"": 0, **_words(items, prefix)})


def _enums(query: QueryParams, name: str, items: Iterable[tuple[str, Any]], prefix: str) -> list[Any]:
    words = _words(items, prefix)
    for value in filter(None, query.getlist(name)):
        if value not in words:
            raise invalid_field(name, f"must be one of {', '.join(words)}")
    return [words[value] for value in query.getlist(name) if value]


def _words(items: Iterable[tuple[str, Any]], prefix: str) -> dict[str, Any]:
    """An enum's values by the words that people write: RUN_STATE_TIMED_OUT is timed_out."""
    return {name.removeprefix(prefix).lower(): number for name, number in items if number}
