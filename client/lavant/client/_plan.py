"""What a reader asks of a stream, and the checks of what callers ask for."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeVar

from google.protobuf.duration_pb2 import Duration

from lavant.client._errors import ResumeTokenInvalid
from lavant.client._ids import new_id
from lavant.v1.event_pb2 import EventType, StepKind
from lavant.v1.event_service_pb2 import DeltaMode, StartPosition, StopPosition, StreamEventsRequest
from lavant.v1.run_pb2 import RunKind

_Choice = TypeVar("_Choice")

Start = Literal["beginning", "now"]
Stop = Literal["run_finished", "head"]
Deltas = Literal["all", "merged", "none"]

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
_TYPES = {name.removeprefix("EVENT_TYPE_").lower(): number for name, number in EventType.items() if number}
_STEP_KINDS = {name.removeprefix("STEP_KIND_").lower(): number for name, number in StepKind.items() if number}
_RUN_KINDS = {name.removeprefix("RUN_KIND_").lower(): number for name, number in RunKind.items() if number}

_SHORTEST_HEARTBEAT, _LONGEST_HEARTBEAT = 1.0, 60.0
_LONGEST_DURATION = 315_576_000_000.0  # google.protobuf.Duration's
_PARTIAL = re.compile(r"([^~]+)~([1-9][0-9]{0,17})")
_REMEMBERED_SESSIONS = 1_000


class Session:
    """One stream object's session, from `Sessions.begin` until it is closed."""

    __slots__ = ("attempt", "closed", "id", "key", "opened")

    def __init__(self, session_id: str, attempt: int, key: tuple[str, str] | None) -> None:
        self.id = session_id
        self.attempt = attempt
        self.key = key
        self.opened = self.closed = False


class Sessions:
    """Lets a consumer's next stream continue the session of its last one, once that is closed.

    The server lets such a stream in at once, where it would refuse another session until it has
    seen the last one's end. Knows the newest sessions only; without one, a new session begins.
    """

    def __init__(self, limit: int = _REMEMBERED_SESSIONS) -> None:
        self._limit = limit
        self._latest: dict[tuple[str, str], Session] = {}

    def begin(self, run_id: str, consumer: str | None) -> Session:
        """Begin a session for a new stream: a rival of the consumer's streams that are still open."""
        key = (run_id, consumer) if consumer else None
        latest = self._latest.get(key) if key else None
        if key is None or latest is None or not latest.closed:
            return Session(new_id(), 0, key)
        del self._latest[key]
        return Session(latest.id, latest.attempt, key)

    def opened(self, session: Session) -> None:
        """Note that a session got its consumer's place."""
        session.opened = True
        if session.key is not None:
            self._remember(session.key, session)

    def close(self, session: Session) -> None:
        """Let the consumer's next stream continue the session. May be called again."""
        if session.closed:
            return
        session.closed = True
        # One that was not let in, or not yet, must not hide the session that was.
        if session.key is not None and session.attempt and not session.opened and session.key not in self._latest:
            self._remember(session.key, session)

    def _remember(self, key: tuple[str, str], session: Session) -> None:
        self._latest.pop(key, None)
        self._latest[key] = session
        if len(self._latest) > self._limit:
            del self._latest[next(iter(self._latest))]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """A stream's settings, constant over its reconnects. Times are in seconds.

    Raises ValueError or TypeError for a setting that makes no sense.
    """

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
    if not isfinite(value) or not 0 <= value <= _LONGEST_DURATION:
        raise ValueError(message)
    return value


def check_optional_seconds(name: str, value: float | None) -> float | None:
    """Return an argument that is a number of seconds, or None. Raises as `check_seconds` does."""
    return None if value is None else check_seconds(name, value)


def duration(seconds: float) -> Duration:
    """Write seconds as a Duration."""
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def split_token(token: str) -> tuple[str, int]:
    """Split a stream's token into the server's and the sequence up to which events are left out; 0: none.

    Raises ResumeTokenInvalid for one that no stream gave.
    """
    if "~" not in token:
        return token, 0
    partial = _PARTIAL.fullmatch(token)
    if partial is None:
        raise ResumeTokenInvalid("the resume token cannot be used: it is damaged; begin anew")
    return partial[1], int(partial[2])


def event_types(names: Iterable[str]) -> "tuple[EventType.ValueType, ...]":
    """Number event types: `text_delta` is EVENT_TYPE_TEXT_DELTA. Raises ValueError for one that does not exist."""
    if isinstance(names, str):
        raise ValueError("types must be several names, not one string")  # noqa: TRY004
    return tuple(choose("types", name, _TYPES) for name in names)


def step_kind(name: str) -> "StepKind.ValueType":
    """Number a kind of step: `model_request` is STEP_KIND_MODEL_REQUEST. Raises ValueError for an unknown one."""
    return choose("kind", name, _STEP_KINDS)


def run_kind(name: str) -> "RunKind.ValueType":
    """Number a kind of run: `agent` is RUN_KIND_AGENT. Raises ValueError for an unknown one."""
    return choose("kind", name, _RUN_KINDS)
