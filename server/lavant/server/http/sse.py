"""Server-sent events: the texts of events and frames, and the response that sends them.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote as percent_encode
from urllib.parse import unquote

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from lavant.contract.json_text import quote, to_json, writer
from lavant.server.auth.principal import CALLER, Principal
from lavant.server.errors import ServiceError, report_internal_error
from lavant.server.http.errors import refused, to_response
from lavant.server.slices import in_slices
from lavant.server.streaming.frames import Pieces
from lavant.server.streaming.peers import PEER
from lavant.server.streaming.tokens import TokenIssuer, token_invalid
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch, StreamEndReason
from lavant.v1.run_pb2 import Run

RETRY_MS = 1_000
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_CACHED_BYTES = 16 << 20
SHORT = 16 << 10  # bytes of a batch that is written at once
_END_REASON = "STREAM_END_REASON_"
_END_OF_ID = b"~\n\n"
OVER = "~over"  # suffix of the ID of an idle end: a browser that sends it must be answered with 204
_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
# A reconnect does not help: another stream has the lease, or there is nothing to read.
_FINAL = {
    ErrorReason.ERROR_REASON_STREAM_DISPLACED,
    ErrorReason.ERROR_REASON_RUN_NOT_FOUND,
    ErrorReason.ERROR_REASON_DATA_LOSS,
}

_Key = tuple[bytes, tuple[bytes, int, int]]
_NONE: _Key = (b"", (b"", 0, 0))
Named = Sequence[tuple[str, str]]
Render = Callable[[Event], Named]

_event_to_json = writer(Event.DESCRIPTOR)
_log = structlog.get_logger(__name__)


def event_of_run(event: Event) -> Named:
    """Return the name of an event, which is its type, and its JSON."""
    return ((event.WhichOneof("payload") or "unknown", _event_to_json(event)),)


class _Writing:
    """Text that is being written, and the number of readers that wait for it."""

    __slots__ = ("readers", "task")

    def __init__(self, task: "asyncio.Task[bytes]") -> None:
        self.task = task
        self.readers = 0


class EventTexts:
    """Cache of the texts of event batches, so that each is written once for all of its readers.

    A long text is written in slices, so that it does not hold up the event loop.
    """

    def __init__(self, render: Render, limit: int = _CACHED_BYTES) -> None:
        self._render = render
        self._limit = limit
        self._size = 0
        self._texts: OrderedDict[_Key, bytes] = OrderedDict()
        self._writing: dict[_Key, _Writing] = {}
        self._last_key, self._last = _NONE, b""

    async def of(self, tokens: TokenIssuer, batch: bytes) -> bytes:
        """Return the text of a batch, with IDs that lack a session."""
        key = (batch, tokens.key)
        if key == self._last_key:  # all readers of a live run ask for the same batch in turn
            return self._last
        text = self._texts.get(key)
        if text is None:
            text = await self._write(key, tokens)
        else:
            self._texts.move_to_end(key)
        self._last_key, self._last = key, text
        return text

    async def _write(self, key: _Key, tokens: TokenIssuer) -> bytes:
        if len(key[0]) <= SHORT:
            return self._keep(key, "".join(self._texts_of(tokens, key[0])).encode())
        # A task of its own: readers share it, and each of them may be cancelled.
        writing = self._writing.get(key)
        if writing is None:
            writing = self._writing[key] = _Writing(asyncio.create_task(self._write_slices(key, tokens)))
        writing.readers += 1
        try:
            return await asyncio.shield(writing.task)
        finally:
            writing.readers -= 1
            if not writing.readers:  # if it is not done, all have gone
                writing.task.cancel()
                if self._writing.get(key) is writing:
                    del self._writing[key]

    async def _write_slices(self, key: _Key, tokens: TokenIssuer) -> bytes:
        return self._keep(key, "".join(await in_slices(self._texts_of(tokens, key[0]))).encode())

    def _texts_of(self, tokens: TokenIssuer, batch: bytes) -> Iterator[str]:
        """Yield the text of each event of a batch."""
        id_start = f"id: {tokens.prefix().decode()}"
        for event in EventBatch.FromString(batch).events:
            text = ""
            for name, data in self._render(event):
                text = f"{text}\nevent: {name}\ndata: {data}\n" if text else f"event: {name}\ndata: {data}\n"
            # Only the last text of an event has an ID: after a cut among them, all are sent again.
            yield f"{text}{id_start}{event.sequence}~\n\n"

    def _keep(self, key: _Key, text: bytes) -> bytes:
        self._texts[key] = text
        self._size += len(key[0]) + len(text)
        while self._size > self._limit and len(self._texts) > 1:
            (oldest, _), oldest_text = self._texts.popitem(last=False)
            self._size -= len(oldest) + len(oldest_text)
        return text


class StreamFrames(ABC):
    """Base of encoders of one stream.

    The ID of an event is its resume token, `~`, and the session of the stream, if any. A browser reconnects with the
    last ID it received, and is recognized by it as the same reader. JSON escapes line breaks, so no data of a run can
    end a line.
    """

    def __init__(self, session_id: str = "") -> None:
        # In ASCII, which a header carries unchanged: browsers and servers disagree on the encoding of other text.
        self.end_of_id = f"~{percent_encode(session_id, safe='').replace('~', '%7E')}\n\n".encode()

    def position(self, tokens: TokenIssuer, sequence: int) -> Pieces:
        """Encode an ID, and the empty line that completes an event."""
        return (b"id: ", tokens.at(sequence), self.end_of_id)

    def heartbeat(self, tokens: TokenIssuer, sequence: int, **_: int) -> Pieces:
        """Encode a comment, which browsers ignore, with an ID, which they remember."""
        return (b": heartbeat\n", *self.position(tokens, sequence))

    def end(
        self,
        tokens: TokenIssuer,
        sequence: int,
        reason: "StreamEndReason.ValueType",
        *,
        reconnect: bool,
        retry_delay: float = 0,
    ) -> Pieces:
        """Encode the end, with the delay before a reconnect. An idle end is marked: the reader asked for it."""
        retry = f"retry: {max(RETRY_MS, round(retry_delay * 1000))}\n".encode() if reconnect else b""
        over = OVER.encode() if reason == StreamEndReason.STREAM_END_REASON_IDLE and not reconnect else b""
        last_id = (b"id: ", tokens.at(sequence), self.end_of_id.rstrip(), over, b"\n\n")
        return (retry, self.end_event(_name_of(reason), reconnect=reconnect), *last_id)

    @abstractmethod
    def end_event(self, reason: str, *, reconnect: bool, message: str = "") -> bytes:
        """Encode an end, without ID and without the empty line that completes it. Errors have a message."""

    def frame(self, _tokens: TokenIssuer, _sequence: int, parts: Pieces) -> bytes:
        """Join parts; each has an ID already."""
        return parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)


class SSEFrames(StreamFrames):
    """Encoder of one stream in lavant's own format."""

    def __init__(self, texts: EventTexts, session_id: str = "", state: Callable[[Run], Named] = lambda _: ()) -> None:
        """Encode events as `texts` does; `state` returns additional events for each opening of the stream."""
        super().__init__(session_id)
        self._texts = texts
        self._state = state

    @property
    def key(self) -> object:
        """Key of the encoders that share frames of events: those without a session."""
        return self._texts if self.end_of_id == _END_OF_ID else None

    def opened(self, tokens: TokenIssuer, sequence: int, run: Run | None, **_: float) -> Pieces:
        """Encode the opening, with the current state of the run."""
        data = f'{{"run": {to_json(run)}}}' if run is not None else "{}"
        named = (("opened", data), *(self._state(run) if run is not None else ()))
        end_of_event = b"id: " + tokens.at(sequence) + self.end_of_id
        events = [f"event: {name}\ndata: {text}\n".encode() + end_of_event for name, text in named]
        return (f"retry: {RETRY_MS}\n".encode(), *events)

    async def events(self, tokens: TokenIssuer, _: int, events: Pieces) -> Pieces:
        """Encode events, each with an ID of its own."""
        text = await self._texts.of(tokens, b"".join(events))
        if self.end_of_id == _END_OF_ID:
            return (text,)
        return (text.replace(_END_OF_ID, self.end_of_id),)  # no JSON ends with a tilde, so this matches IDs only

    def caught_up(self, tokens: TokenIssuer, sequence: int, last_sequence: int) -> Pieces:
        """Encode that all recorded events are sent."""
        text = f'event: caught_up\ndata: {{"last_sequence": "{last_sequence}"}}\n'.encode()
        return (text, *self.position(tokens, sequence))

    def end_event(self, reason: str, *, reconnect: bool, message: str = "") -> bytes:
        """Encode an `end` event, which has the reason."""
        return end_event(reason, reconnect=reconnect, message=message)


def end_of(reason: "StreamEndReason.ValueType", *, reconnect: bool) -> bytes:
    """Return the `end` event of a planned end, without the empty line that completes it."""
    return end_event(_name_of(reason), reconnect=reconnect)


def _name_of(reason: "StreamEndReason.ValueType") -> str:
    return StreamEndReason.Name(reason).removeprefix(_END_REASON)


def end_event(reason: str, *, reconnect: bool, message: str = "") -> bytes:
    """Return an `end` event, without the empty line that completes it."""
    told = f', "message": {quote(message)}' if message else ""
    return f'event: end\ndata: {{"reason": "{reason}", "reconnect": {str(reconnect).lower()}{told}}}\n'.encode()


@dataclass(frozen=True, slots=True)
class HTTPCaller:
    """Caller of a request over HTTP, which has no deadline."""

    write: Callable[[bytes], Awaitable[None]]
    principal: Principal = field(default_factory=CALLER.get)
    peer: str = field(default_factory=PEER.get)

    @property
    def tenant(self) -> str:
        """Tenant of the principal."""
        return self.principal.tenant

    def time_remaining(self) -> None:
        """Return None: there is no deadline."""
        return


@dataclass(frozen=True, slots=True)
class LastEventId:
    """Position and session of a reader that reconnects; empty for a new one."""

    token: str
    session_id: str
    is_over: bool = False

    @classmethod
    def of(cls, request: Request, parameter: str) -> "LastEventId":
        """Read the header Last-Event-ID, or else the parameter of readers that cannot set headers.

        Browsers send the header on their own, also after an idle end: only a response other than 200 stops them.
        The parameter is sent on purpose, by readers that want to continue.
        """
        header = request.headers.get("last-event-id", "")
        given = header or parameter
        token, _, session_id = given.removesuffix(OVER).partition("~")
        if given and not token:
            raise token_invalid("it is empty")
        return cls(token, unquote(session_id), is_over=header.endswith(OVER))


def new_session_id() -> str:
    """Return a random ID for the session of a stream, which its reconnects continue."""
    return secrets.token_hex(8)


def attempt_now() -> int:
    """Return the number of an attempt: a later request has a higher one."""
    return time.time_ns()


class EventStreamResponse:
    """Response that sends what `deliver` writes; an error before the first write becomes an error response.

    A write returns once the connection has accepted it: a slow reader costs no more memory than one frame.
    """

    def __init__(
        self,
        deliver: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]],
        *,
        encode_end: Callable[..., bytes] = end_event,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self.on_error: Callable[[ServiceError], None] = lambda _: None
        self._deliver = deliver
        self._encode_end = encode_end
        self._headers = [*_HEADERS, *((name.encode(), value.encode()) for name, value in headers.items())]
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""

        async def write(text: bytes) -> None:
            if not self._has_begun:
                self._has_begun = True
                await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await send({"type": "http.response.body", "body": text, "more_body": True})

        last = b""
        try:
            await self._deliver(write)
        except ServiceError as error:
            self.on_error(error)
            if not self._has_begun:
                await to_response(error)(scope, receive, send)
                return
            reconnect = error.reason not in _FINAL
            last = self._encode_end(error.reason_name, reconnect=reconnect, message=error.message) + b"\n"
            _log.info("event_stream_ended", reason=error.reason_name)
        except Exception as error:
            message = report_internal_error(error)
            if not self._has_begun:
                await refused(500, "INTERNAL", message)(scope, receive, send)
                return
            last = self._encode_end("INTERNAL", reconnect=True, message=message) + b"\n"
        await send({"type": "http.response.body", "body": last})
