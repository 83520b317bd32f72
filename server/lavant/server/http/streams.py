"""Server-sent events: one response for as long as somebody listens."""

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from lavant.server.errors import LavantError
from lavant.server.http import queries
from lavant.server.http.errors import name_of, refused, to_response
from lavant.server.http.sse import OVER, end, failure
from lavant.server.incidents import report
from lavant.server.streaming.tokens import token_invalid
from lavant.v1.error_pb2 import ErrorReason

_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
# Coming back does not help: somebody else reads, or there is nothing to read.
_FINAL = {
    ErrorReason.ERROR_REASON_STREAM_DISPLACED,
    ErrorReason.ERROR_REASON_RUN_NOT_FOUND,
    ErrorReason.ERROR_REASON_DATA_LOSS,
}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HTTPCaller:
    """Whoever made a request. HTTP's requests have no deadline."""

    tenant: str
    write: Callable[[bytes], Awaitable[None]]

    def time_remaining(self) -> None:
        """Say that there is none."""
        return


@dataclass(frozen=True, slots=True)
class LastEventId:
    """What a reader that was cut off sends: where it was, and the session of its stream."""

    token: str
    session_id: str
    is_over: bool = False

    @classmethod
    def of(cls, request: Request) -> "LastEventId":
        """Read the header; else the parameter, for those who cannot set headers.

        Browsers send the header by themselves, also after a stream that fell idle as was asked for: they need
        an answer that stops them. The parameter is sent on purpose, by those who want to read on.
        """
        sent = request.headers.get("last-event-id", "")
        given = sent or queries.last_event_id(request.query_params)
        token, _, session_id = given.removesuffix(OVER).partition("~")
        if given and not token:
            raise token_invalid("it is empty")
        return cls(token, session_id, is_over=sent.endswith(OVER))


def new_session_id() -> str:
    """Name a stream's session, which its reconnects continue."""
    return secrets.token_hex(8)


def attempt_now() -> int:
    """Number an attempt of a session: the later request is the newer one."""
    return time.time_ns()


class EventStreamResponse:
    """Sends what `deliver` writes, until it ends or is cancelled; an error before the first write is the response.

    A write returns once the connection has taken it: what is written to a reader that does not read
    waits, and costs no more than one frame.
    """

    def __init__(self, deliver: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]) -> None:
        self._deliver = deliver
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deliver."""

        async def write(text: bytes) -> None:
            if not self._has_begun:
                self._has_begun = True
                await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await send({"type": "http.response.body", "body": text, "more_body": True})

        last = b""
        try:
            await self._deliver(write)
        except LavantError as error:
            if not self._has_begun:
                await to_response(error)(scope, receive, send)
                return
            last = failure(error, reconnect=error.reason not in _FINAL)
            _log.info("event_stream_ended", reason=name_of(error))
        except Exception as error:
            incident = report(error)
            if not self._has_begun:
                await refused(500, "INTERNAL", incident)(scope, receive, send)
                return
            last = end("INTERNAL", reconnect=True, message=incident) + b"\n"
        await send({"type": "http.response.body", "body": last})
