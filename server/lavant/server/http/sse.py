"""Streams as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from lavant.contract.json_text import quote, to_json
from lavant.server.errors import LavantError
from lavant.server.http.errors import name_of
from lavant.server.streaming.tokens import Bookmark
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch, StreamEndReason
from lavant.v1.run_pb2 import Run

RETRY_MS = 1_000
_CACHED_BYTES = 16 << 20
_END_REASON = "STREAM_END_REASON_"
_END_OF_ID = b"~\n\n"
OVER = "~over"  # behind an id: the stream fell idle, as was asked for, and a browser need not open it again

_Key = tuple[bytes, tuple[bytes, int, int]]
_NONE: _Key = (b"", (b"", 0, 0))
Named = Sequence[tuple[str, str]]
Render = Callable[[Event], Named]


def event_of_run(event: Event) -> Sequence[tuple[str, str]]:
    """An event as the contract has it, named by its payload."""
    return ((event.WhichOneof("payload") or "unknown", to_json(event)),)


class EventTexts:
    """What events look like, written once for all who read the same ones; the newest are kept."""

    def __init__(self, render: Render, limit: int = _CACHED_BYTES) -> None:
        self._render = render
        self._limit = limit
        self._size = 0
        self._texts: OrderedDict[_Key, bytes] = OrderedDict()
        self._last_key, self._last = _NONE, b""

    def of(self, bookmark: Bookmark, batch: bytes) -> bytes:
        """Return a batch's text, the ids in it without a session."""
        key = (batch, bookmark.key)
        if key == self._last_key:  # Live, all ask for the same in turn.
            return self._last
        text = self._texts.pop(key, None)
        if text is None:
            text = self._write(bookmark, batch)
            self._size += len(batch) + len(text)
        self._texts[key] = text
        self._last_key, self._last = key, text
        while self._size > self._limit and len(self._texts) > 1:
            (oldest, _), oldest_text = self._texts.popitem(last=False)
            self._size -= len(oldest) + len(oldest_text)
        return text

    def _write(self, bookmark: Bookmark, batch: bytes) -> bytes:
        pieces: list[bytes] = []
        for event in EventBatch.FromString(batch).events:
            # Of several, only the last has an id: a cut among them sends them all again.
            texts = "\n".join(f"event: {name}\ndata: {data}\n" for name, data in self._render(event))
            pieces += (texts.encode(), b"id: ", bookmark.at(event.sequence), _END_OF_ID)
        return b"".join(pieces)


class SSEFrames:
    """Writes one stream. Every event has an id: the token behind it, `~`, and the session of the stream, if it has one.

    A browser that was cut off sends the last id it has seen, and is known by it as the same reader. JSON
    escapes line breaks, and nothing else of a run gets into a line.
    """

    def __init__(self, texts: EventTexts, session_id: str = "", state: Callable[[Run], Named] = lambda _: ()) -> None:
        """Write events as `texts` does; `state` tells what is said of the run each time that the stream is opened."""
        self._texts = texts
        self._state = state
        self._end_of_id = f"~{session_id}\n\n".encode()

    def opened_frame(self, token: bytes, run: Run | None, *_: float) -> bytes:
        """The first frame: the run as it stands."""
        data = f'{{"run": {to_json(run)}}}' if run is not None else "{}"
        told = (("opened", data), *(self._state(run) if run is not None else ()))
        end_of_event = b"id: " + token + self._end_of_id
        events = [f"event: {name}\ndata: {said}\n".encode() + end_of_event for name, said in told]
        return f"retry: {RETRY_MS}\n".encode() + b"".join(events)

    def events_frame(self, bookmark: Bookmark, _: int, pieces: Sequence[bytes | memoryview]) -> bytes:
        """Events, each by itself."""
        text = self._texts.of(bookmark, b"".join(pieces))
        if self._end_of_id == _END_OF_ID:
            return text
        return text.replace(_END_OF_ID, self._end_of_id)  # JSON ends in no tilde: only ids do.

    def heartbeat_frame(self, token: bytes, *_: int) -> bytes:
        """A comment, which no application sees; the id moves on."""
        return b": heartbeat\nid: " + token + self._end_of_id

    def caught_up_frame(self, token: bytes, last_sequence: int) -> bytes:
        """All that was recorded is sent."""
        return (
            f'event: caught_up\ndata: {{"last_sequence": "{last_sequence}"}}\nid: '.encode() + token + self._end_of_id
        )

    def end_frame(
        self, token: bytes, reason: "StreamEndReason.ValueType", *, reconnect: bool, retry_delay: float = 0
    ) -> bytes:
        """The last frame, and when to come back. After an idle end, only those should who want to: it was asked for."""
        name = StreamEndReason.Name(reason).removeprefix(_END_REASON)
        retry = f"retry: {max(RETRY_MS, round(retry_delay * 1000))}\n".encode() if reconnect else b""
        over = OVER.encode() if reason == StreamEndReason.STREAM_END_REASON_IDLE else b""
        return retry + end(name, reconnect=reconnect) + b"id: " + token + self._end_of_id.rstrip() + over + b"\n\n"


def end(reason: str, *, reconnect: bool, message: str = "") -> bytes:
    """The event that says why nothing follows, yet without its end."""
    told = f', "message": {quote(message)}' if message else ""
    return f'event: end\ndata: {{"reason": "{reason}", "reconnect": {str(reconnect).lower()}{told}}}\n'.encode()


def failure(error: LavantError, *, reconnect: bool) -> bytes:
    """The same for what went wrong after the stream had begun."""
    return end(name_of(error), reconnect=reconnect, message=error.message) + b"\n"
