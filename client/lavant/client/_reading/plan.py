"""Settings of a stream, and the sessions of its consumer."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lavant.client._wire.arguments import check_seconds, choose, duration
from lavant.client._wire.ids import new_id
from lavant.client.errors import ResumeTokenInvalid
from lavant.client.events import Event
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import DeltaMode, StartPosition, StopPosition, StreamEventsRequest

_ID = re.compile(r"([^~]+)(?:~(0|[1-9][0-9]{0,17})(?:~([A-Za-z0-9-]{0,64}))?(~end)?)?")


@dataclass(frozen=True, slots=True)
class LastEventId:
    """Position of a server-sent event: a token, the last sequence received after it, and the reader's session.

    Written as `TOKEN~SEQUENCE~SESSION`, with `~end` at the end of the stream; SEQUENCE is 0 if nothing was received
    after the token. A reader that returns with its session displaces its own earlier stream, even if that connection is
    dead.
    """

    token: str = ""
    sequence: int = 0
    session_id: str = ""
    is_final: bool = False

    @classmethod
    def parse(cls, text: str) -> "LastEventId":
        """Read an id, or a stream's resume token. Raises ResumeTokenInvalid for other text."""
        if not text:
            return cls()
        found = _ID.fullmatch(text)
        if found is None:
            raise ResumeTokenInvalid("the resume token cannot be used: it is damaged; read from the start")
        token, sequence, session_id, final = found.groups()
        return cls(token, int(sequence or 0), session_id or "", final is not None)


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
    """Settings of a stream, constant over its reconnects. Times are in seconds.

    Raises ValueError or TypeError for settings that are not valid.
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
        """Return the request of a call: from the token, if there is one.

        `take_over` is sent until the session was open once. A reconnect must not displace the stream that displaced it.
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
    """Split a stream's token into the server's, and the sequence up to which events are skipped; 0 for none.

    Accepts ids of server-sent events too. Raises ResumeTokenInvalid for other text.
    """
    place = LastEventId.parse(token)
    return place.token, place.sequence


_REMEMBERED_SESSIONS = 1_000


class Session:
    """Session of one stream object, until it is closed."""

    __slots__ = ("attempt", "closed", "id", "key", "opened")

    def __init__(self, session_id: str, attempt: int, key: tuple[str, str] | None) -> None:
        self.id = session_id
        self.attempt = attempt
        self.key = key
        self.opened = self.closed = False


class Sessions:
    """Continues the session of a consumer's closed stream in its next one.

    The server lets such a stream in at once; another session is refused until the lease expires. Remembers a bounded
    number of sessions, the newest ones.
    """

    def __init__(self, limit: int = _REMEMBERED_SESSIONS) -> None:
        self._limit = limit
        self._latest: dict[tuple[str, str], Session] = {}

    def begin(self, run_id: str, consumer: str, *, take_over: bool = False) -> Session:
        """Begin a session for a new stream: a rival of the consumer's open ones. An unnamed consumer has no others.

        To take over, it has to be a new session: the server ignores `take_over` of one that was displaced.
        """
        key = (run_id, consumer) if consumer else None
        latest = self._latest.get(key) if key else None
        if key is None or take_over or latest is None or not latest.closed:
            return Session(new_id(), 0, key)
        del self._latest[key]
        return Session(latest.id, latest.attempt, key)

    def opened(self, session: Session) -> None:
        """Note that a session has acquired its consumer's lease."""
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
