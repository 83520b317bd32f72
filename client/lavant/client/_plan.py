"""What a reader asks of a stream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lavant.client._arguments import check_seconds, choose, duration
from lavant.client._events import Event
from lavant.client._last_event_id import LastEventId
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import DeltaMode, StartPosition, StopPosition, StreamEventsRequest

Start = Literal["beginning", "now"]
Stop = Literal["run_finished", "head"]
Deltas = Literal["all", "merged", "none"]
Handler = Callable[[Event], Any]

_STARTS: "dict[str, StartPosition.ValueType]" = {
    "beginning": StartPosition.START_POSITION_BEGINNING,
    "now": StartPosition.START_POSITION_NOW,
}
_STOPS: "dict[str, StopPosition.ValueType]" = {
    "run_finished": StopPosition.STOP_POSITION_RUN_FINISHED,
    "head": StopPosition.STOP_POSITION_HEAD,
}
_DELTAS: "dict[str, DeltaMode.ValueType]" = {
    "all": DeltaMode.DELTA_MODE_ALL,
    "merged": DeltaMode.DELTA_MODE_MERGED,
    "none": DeltaMode.DELTA_MODE_NONE,
}
_SHORTEST_HEARTBEAT, _LONGEST_HEARTBEAT = 1.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """A stream's settings, constant over its reconnects. Times are in seconds.

    Raises ValueError or TypeError for a setting that makes no sense.
    """

    run_id: str
    consumer_id: str
    session_id: str = ""
    start: Start = "beginning"
    stop: Stop = "run_finished"
    types: "tuple[EventType.ValueType, ...]" = ()
    deltas: Deltas = "all"
    heartbeat_interval: float = 15.0
    take_over: bool = False
    wait_for_run: bool = False

    def __post_init__(self) -> None:
        choose("start", self.start, _STARTS)
        choose("stop", self.stop, _STOPS)
        choose("deltas", self.deltas, _DELTAS)
        interval = check_seconds("heartbeat_interval", self.heartbeat_interval)
        if not _SHORTEST_HEARTBEAT <= interval <= _LONGEST_HEARTBEAT:
            raise ValueError(f"heartbeat_interval must be 1 to 60 seconds, not {interval:g}")

    def request(self, attempt: int, resume_token: str | None, *, opened: bool) -> StreamEventsRequest:
        """Build the call's request: from the token, where there is one.

        A session that had its place once does not take it over again: its reconnects must not
        win it back from whoever took it in the meantime.
        """
        request = StreamEventsRequest(
            run_id=self.run_id,
            consumer_id=self.consumer_id,
            session_id=self.session_id,
            attempt=attempt,
            take_over=self.take_over and not opened,
            stop=_STOPS[self.stop],
            types=self.types,
            deltas=_DELTAS[self.deltas],
            heartbeat_interval=duration(self.heartbeat_interval),
            wait_for_run=self.wait_for_run,
        )
        if resume_token:
            request.resume_token = resume_token
        else:
            request.start = _STARTS[self.start]
        return request


def split_token(token: str) -> tuple[str, int]:
    """Split a stream's token into the server's and the sequence up to which events are left out; 0: none.

    The id of a server-sent event is such a token too. Raises ResumeTokenInvalid for one that no stream gave.
    """
    place = LastEventId.parse(token)
    return place.token, place.sequence
