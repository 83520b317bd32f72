"""What a reader asks of a stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from lavant.v1.event_pb2 import EventType, StepKind
from lavant.v1.event_service_pb2 import DeltaMode, StartPosition, StopPosition, StreamEventsRequest

Start = Literal["beginning", "now"]
Stop = Literal["run_finished", "head"]
Deltas = Literal["all", "merged", "none"]

_STARTS: "dict[Start, StartPosition.ValueType]" = {
    "beginning": StartPosition.START_POSITION_BEGINNING,
    "now": StartPosition.START_POSITION_NOW,
}
_STOPS: "dict[Stop, StopPosition.ValueType]" = {
    "run_finished": StopPosition.STOP_POSITION_RUN_FINISHED,
    "head": StopPosition.STOP_POSITION_HEAD,
}
_DELTAS: "dict[Deltas, DeltaMode.ValueType]" = {
    "all": DeltaMode.DELTA_MODE_ALL,
    "merged": DeltaMode.DELTA_MODE_MERGED,
    "none": DeltaMode.DELTA_MODE_NONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """A stream's settings, constant over its reconnects. Times are in seconds."""

    run_id: str
    consumer_id: str
    session_id: str
    start: Start = "beginning"
    stop: Stop = "run_finished"
    types: "tuple[EventType.ValueType, ...]" = ()
    deltas: Deltas = "all"
    heartbeat_interval: float = 15.0
    take_over: bool = False
    wait_for_run: bool = False

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


def duration(seconds: float) -> Duration:
    """Write seconds as a Duration."""
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def event_types(names: "Sequence[str]") -> "tuple[EventType.ValueType, ...]":
    """Number event types: `text_delta` is EVENT_TYPE_TEXT_DELTA. Raises ValueError for one that does not exist."""
    return tuple(EventType.Value(f"EVENT_TYPE_{name.upper()}") for name in names)


def step_kind(name: str) -> "StepKind.ValueType":
    """Number a kind of step: `model_request` is STEP_KIND_MODEL_REQUEST. Raises ValueError for an unknown one."""
    return StepKind.Value(f"STEP_KIND_{name.upper()}")
