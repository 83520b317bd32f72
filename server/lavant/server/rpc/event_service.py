"""EventService: appends events to runs' logs, and streams and lists them."""

import secrets
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from lavant.contract.limits import OWN_RUNS
from lavant.contract.values import seconds_of
from lavant.server.auth.access import check_readable, check_visible
from lavant.server.auth.ownership import owner_of, session_of
from lavant.server.auth.principal import Scope
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.rpc.bounds import checked
from lavant.server.rpc.dispatch import Service, bidi_stream, server_stream, unary
from lavant.server.rpc.publish import Publisher
from lavant.server.rpc.validation import DEFAULT_PAGE_SIZE
from lavant.server.slices import in_slices
from lavant.server.store.chunk import Chunk, varint
from lavant.server.store.port import Holder
from lavant.server.streaming import frames
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.frames import Encoder
from lavant.server.streaming.reader import ALL_TYPES, Selection, type_mask
from lavant.server.streaming.subscription import Streaming, StreamOptions, Subscription
from lavant.server.streaming.tokens import Position
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import EventType

_DEFAULT_HEARTBEAT = 15.0
_DEFAULT_IDLE = 60 * 60.0
_PAGE_BYTES = 1 << 20
_MAX_FILTERED_BYTES = 16 << 20  # stored bytes after which one page's filter reads no further batch
_NEXT_PAGE_TOKEN, _RESUME_TOKEN = b"\x12", b"\x1a"  # ListEventsResponse: fields 2 and 3, length-delimited

_PUBLIC = type_mask(EventType.values()[1:])


class EventService:
    """The RPCs of EventService; the contract describes each."""

    def __init__(self, streaming: Streaming, publisher: Publisher) -> None:
        self._streaming = streaming
        self._engine = streaming.engine
        self._publisher = publisher

    def service(self) -> Service:
        """Return the methods for a gRPC server, with the scopes that they need."""
        return Service(
            pb.DESCRIPTOR.services_by_name["EventService"].full_name,
            {
                "AppendEvents": unary(pb.AppendEventsRequest, self._publisher.append_events, Scope.RUNS_PUBLISH),
                "PublishEvents": bidi_stream(self._publisher.publish_events, Scope.RUNS_PUBLISH),
                "StreamEvents": server_stream(pb.StreamEventsRequest, self.stream_events, Scope.RUNS_READ),
                "ListEvents": unary(pb.ListEventsRequest, self.list_events, Scope.RUNS_READ),
            },
        )

    @checked(pb.StreamEventsRequest)
    async def stream_events(self, request: pb.StreamEventsRequest, call: Caller, encoder: Encoder = frames) -> None:
        """Stream the events of a run; frames are written by `encoder`."""
        options = self._stream_options(request, call)
        del request  # a stream may stay open for long
        await Subscription(self._streaming, options, call.write, encoder).deliver()

    @checked(pb.ListEventsRequest)
    async def list_events(self, request: pb.ListEventsRequest, call: Caller) -> bytes:
        """Return a page of events, encoded. A page ends early when it gets large, or when few of many events match."""
        check_readable(call.principal, request.run_id)
        key = RunKey(call.tenant, request.run_id)
        position = self._position(key, request.page_token or None, _mask(key, request.types))
        page_size = request.page_size or DEFAULT_PAGE_SIZE
        run = check_visible(call.principal, await self._engine.get_run(key))
        created_ns = run.create_time.ToNanoseconds()
        position.check(created_ns, run.last_sequence)
        page = EventPage(Selection(position.types, pb.DELTA_MODE_ALL), position.sequence, page_size)
        while page.sequence < run.last_sequence and page.has_space():
            await in_slices(page.add(await self._engine.read(key, page.sequence, _PAGE_BYTES, created_ns)))
        token = self._streaming.tokens.issuer(key, position.types, created_ns).at(page.sequence)
        field = varint(len(token)) + token
        next_page = b"" if page.sequence >= run.last_sequence else _NEXT_PAGE_TOKEN + field
        return page.body() + next_page + _RESUME_TOKEN + field

    def _stream_options(self, request: pb.StreamEventsRequest, call: Caller) -> StreamOptions:
        check_readable(call.principal, request.run_id)
        key = RunKey(call.tenant, request.run_id)
        consumer = ConsumerKey(key, request.consumer_id)
        # Without a session every call is a consumer of its own making, and so a rival of the others.
        session_id = request.session_id or secrets.token_hex(16)
        token = request.resume_token if request.HasField("resume_token") else None
        remaining = call.time_remaining()
        return StreamOptions(
            consumer=consumer,
            holder=Holder(
                session_id=session_of(call.principal, session_id),
                attempt=request.attempt,
                take_over=request.take_over,
                owner=owner_of(call.principal),
            ),
            position=self._position(key, token, _mask(key, request.types)),
            from_now=request.start == pb.START_POSITION_NOW,
            to_head=request.stop == pb.STOP_POSITION_HEAD,
            deltas=request.deltas,
            heartbeat_interval=seconds_of(request.heartbeat_interval) or _DEFAULT_HEARTBEAT,
            idle_timeout=seconds_of(request.idle_timeout) or _DEFAULT_IDLE,
            ends_when_idle=request.HasField("idle_timeout"),
            wait_for_run=request.wait_for_run,
            within=call.principal.restriction,
            deadline=None if remaining is None else self._streaming.clock.monotonic() + remaining,
            peer=call.peer,
        )

    def _position(self, key: RunKey, token: str | None, types: int) -> Position:
        if token is None:
            return Position(sequence=0, types=types, created_ns=0)
        position = self._streaming.tokens.read(token, key)
        return position if types == ALL_TYPES else position._replace(types=types)


class EventPage:
    """Gathers a page of events, framed as they are stored."""

    def __init__(self, selection: Selection, sequence: int, page_size: int) -> None:
        self.sequence = sequence
        self._selection = selection
        self._events_left = page_size
        self._bytes_left = _PAGE_BYTES
        self._filter_bytes_left = _MAX_FILTERED_BYTES
        self._pieces: list[bytes | memoryview] = []

    def has_space(self) -> bool:
        """Return whether the page may hold one more event."""
        return self._events_left > 0 and self._bytes_left > 0 and self._filter_bytes_left > 0

    def add(self, chunks: Iterable[Chunk]) -> Iterator[None]:
        """Add the events of chunks, up to the bounds of the page; the work may pause after each of them."""
        for chunk in chunks:
            if not self.has_space():
                return
            self._add(chunk)
            yield

    def _add(self, chunk: Chunk) -> None:
        begin = self.sequence + 1 - chunk.first_sequence
        for start, end in self._selection.runs(chunk, begin):
            # Events fit up to the one with which the page has reached its size.
            fitting = bisect_left(chunk.ends, chunk.start(start) + self._bytes_left, lo=start) + 1
            stop = min(end, start + self._events_left, fitting)
            self._pieces.append(chunk.slice(start, stop))
            self._events_left -= stop - start
            self._bytes_left -= chunk.start(stop) - chunk.start(start)
            self.sequence = chunk.first_sequence + stop - 1
            if not self.has_space():
                return
        self._filter_bytes_left -= chunk.start(len(chunk.types)) - chunk.start(begin)
        self.sequence = chunk.last_sequence

    def body(self) -> bytes:
        """Return the events as ListEventsResponse encodes them."""
        return b"".join(self._pieces)


def _mask(key: RunKey, types: Iterable["EventType.ValueType"]) -> int:
    """Return the mask of the wanted types: of all public ones in a system run, where the server has records too."""
    return type_mask(types) or (_PUBLIC if key.run_id.startswith(OWN_RUNS) else ALL_TYPES)
