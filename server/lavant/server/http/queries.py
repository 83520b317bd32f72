"""What a URL asks for of runs and their events, as the contract's requests."""

from starlette.datastructures import QueryParams

from lavant.server.http.parameters import Parameters, text
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import DeltaMode, ListEventsRequest, StartPosition, StopPosition, StreamEventsRequest
from lavant.v1.run_pb2 import RunKind, RunState
from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter, WatchRunsRequest

PAGE = {"page_size", "page_token"}
_FILTER = {
    "kind", "state", "name", "label", "conversation_id", "parent_run_id", "created_after", "created_before",
}  # fmt: skip
_STREAM = {
    "consumer", "session", "take_over", "last_event_id", "deltas", "type", "start", "stop", "idle_timeout",
    "heartbeat_interval", "wait_for_run",
}  # fmt: skip
_YES_OR_NO = {"": False, "false": False, "true": True}


def list_runs(query: QueryParams) -> ListRunsRequest:
    """Read what a list of runs is asked for."""
    asked = Parameters(query, _FILTER | PAGE)
    return ListRunsRequest(
        filter=_filter(asked), page_size=asked.number("page_size"), page_token=asked.text("page_token")
    )


def watch_runs(query: QueryParams, last_event_id: str) -> WatchRunsRequest:
    """Read what a watch of runs is asked for."""
    asked = Parameters(query, _FILTER | {"last_event_id"})
    return WatchRunsRequest(filter=_filter(asked), resume_token=last_event_id)


def list_events(query: QueryParams, run_id: str) -> ListEventsRequest:
    """Read what a list of events is asked for."""
    asked = Parameters(query, PAGE | {"type"})
    return ListEventsRequest(
        run_id=run_id,
        page_size=asked.number("page_size"),
        page_token=asked.text("page_token"),
        types=asked.enums("type", EventType.items(), "EVENT_TYPE_"),
    )


def stream_events(query: QueryParams, run_id: str) -> StreamEventsRequest:
    """Read what a stream of events is asked for; where it continues is for the caller to set."""
    asked = Parameters(query, _STREAM)
    return StreamEventsRequest(
        run_id=run_id,
        consumer_id=asked.text("consumer"),
        session_id=asked.text("session"),
        take_over=asked.choice("take_over", _YES_OR_NO),
        deltas=asked.enum("deltas", DeltaMode.items(), "DELTA_MODE_"),
        types=asked.enums("type", EventType.items(), "EVENT_TYPE_"),
        start=asked.enum("start", StartPosition.items(), "START_POSITION_"),
        stop=asked.enum("stop", StopPosition.items(), "STOP_POSITION_"),
        idle_timeout=asked.duration("idle_timeout"),
        heartbeat_interval=asked.duration("heartbeat_interval"),
        wait_for_run=asked.choice("wait_for_run", _YES_OR_NO),
    )


def last_event_id(query: QueryParams) -> str:
    """Read where a reader was that cannot set headers."""
    return text(query, "last_event_id")


def _filter(asked: Parameters) -> RunFilter:
    return RunFilter(
        kinds=asked.enums("kind", RunKind.items(), "RUN_KIND_"),
        states=asked.enums("state", RunState.items(), "RUN_STATE_"),
        names=asked.texts("name"),
        labels=asked.labels("label"),
        conversation_id=asked.text("conversation_id"),
        parent_run_id=asked.text("parent_run_id"),
        created_after=asked.time("created_after"),
        created_before=asked.time("created_before"),
    )
