"""Encoder of streams in another format."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from lavant.server.errors import invalid_field
from lavant.server.http.formats.projection import DELTAS, Projection
from lavant.server.http.sse import RETRY_MS, SHORT, StreamFrames
from lavant.server.slices import in_slices
from lavant.server.streaming.frames import Pieces
from lavant.server.streaming.tokens import Position, TokenIssuer, token_invalid
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import DeltaMode, EventBatch, ListEventsResponse, StartPosition, StreamEventsRequest
from lavant.v1.run_pb2 import Run


class FormatFrames(StreamFrames):
    """Encoder of one stream, which has data of its format only: the rest is comments, each with an ID.

    `begin` returns the projection of the events before the first one that is sent. Of what one event of the run
    becomes, only the last has an ID: whoever resumes drops what came after the last ID.
    """

    def __init__(
        self, kind: type[Projection], begin: Callable[[], Awaitable[Projection]], session_id: str = ""
    ) -> None:
        super().__init__(session_id)
        self._kind = kind
        self._begin = begin
        self._projection: Projection | None = None

    @property
    def key(self) -> object:
        """None: a text depends on all events before, so it is written for its reader alone."""
        return None

    def opened(self, tokens: TokenIssuer, sequence: int, _: Run | None, **__: float) -> Pieces:
        """Encode the position at which the stream starts."""
        return (f": opened\nretry: {RETRY_MS}\n".encode(), *self.position(tokens, sequence))

    async def events(self, tokens: TokenIssuer, _: int, events: Pieces) -> Pieces:
        """Encode what events become."""
        if self._projection is None:
            self._projection = await self._begin()
        batch = b"".join(events)
        texts = self._texts_of(self._projection, tokens, batch)
        return ("".join(texts if len(batch) <= SHORT else await in_slices(texts)).encode(),)

    def _texts_of(self, projection: Projection, tokens: TokenIssuer, batch: bytes) -> Iterator[str]:
        id_start, id_end = f"id: {tokens.prefix().decode()}", self.end_of_id.decode()
        for event in EventBatch.FromString(batch).events:
            texts = "\n\n".join(f"data: {text}" for text in projection.add(event))
            yield f"{texts}\n{id_start}{event.sequence}{id_end}" if texts else f"{id_start}{event.sequence}{id_end}"

    def caught_up(self, tokens: TokenIssuer, sequence: int, _: int) -> Pieces:
        """Encode that all recorded events are sent."""
        return (b": caught_up\n", *self.position(tokens, sequence))

    def end_event(self, reason: str, *, reconnect: bool, message: str = "") -> bytes:
        """Encode an end that the reader asked for as a comment, and any other as an error of the format.

        An error after which a reconnect helps is named `reconnect`, for readers that do so instead.
        """
        if not reconnect and not message:
            return f": end {reason}\n".encode()
        name = "event: reconnect\n" if reconnect else ""
        texts = self._kind.broken_off(reason, message or "the stream ended before the run did; open it again")
        return "\n".join(f"{name}data: {text}\n" for text in texts).encode()


@dataclass(frozen=True, slots=True)
class Start:
    """Place at which a stream starts, and its run, if that exists already."""

    asked: StreamEventsRequest
    run: Run | None
    position: Position | None

    def frames(
        self,
        kind: type[Projection],
        session_id: str,
        get_run: Callable[[], Awaitable[Run]],
        list_events: Callable[[str], Awaitable[bytes]],
    ) -> FormatFrames:
        """Return the encoder of the stream. `list_events` returns the page of a token.

        Raises INVALID_FIELD or RESUME_TOKEN_INVALID for a stream of only a part of the events.
        """
        if self.asked.types:
            raise invalid_field("type", "must be empty in this format, which needs all events")
        if self.position is not None and self.position.types:
            raise token_invalid("it is of a stream of some types, and this format needs all events")
        if self.asked.start == StartPosition.START_POSITION_NOW:
            raise invalid_field("start", "must be beginning in this format, which needs all events")

        async def begin() -> Projection:
            projection = kind(self.run or await get_run())  # one that was waited for exists by now
            if self.position is not None:
                await self._add_events_until(self.position.sequence, projection, list_events)
            return projection

        return FormatFrames(kind, begin, session_id)

    async def _add_events_until(
        self, last: int, projection: Projection, list_events: Callable[[str], Awaitable[bytes]]
    ) -> None:
        """Add the events up to a sequence: what follows depends on what they left open."""
        left_out = DELTAS if self.asked.deltas == DeltaMode.DELTA_MODE_NONE else frozenset[str]()

        def added(events: Iterable[Event]) -> Iterator[None]:
            for event in events:
                if event.sequence <= last and event.WhichOneof("payload") not in left_out:
                    projection.add(event)
                yield

        token = ""
        while True:
            page = ListEventsResponse.FromString(await list_events(token))
            await in_slices(added(page.events))
            token = page.next_page_token
            if not token or (page.events and page.events[-1].sequence >= last):
                return
