"""EventService: appends events to runs' logs, and streams and lists them."""

import secrets
from collections.abc import Sequence

import grpc

from lavant.server.errors import invalid_field
from lavant.server.model import ConsumerKey, RunKey, is_terminal
from lavant.server.rpc.dispatch import Call, bidi_stream, server_stream, unary
from lavant.server.rpc.publish import Publisher
from lavant.server.rpc.validation import check_enum, check_id, check_page_size, check_seconds
from lavant.server.store.chunk import Chunk, varint
from lavant.server.store.port import Claim
from lavant.server.streaming import frames
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.frames import Frames
from lavant.server.streaming.held_stream import Streaming
from lavant.server.streaming.outlet import Outlet
from lavant.server.streaming.selection import ALL_TYPES, Selection, Span, type_mask
from lavant.server.streaming.subscription import StreamOptions, Subscription
from lavant.server.streaming.tokens import Position
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import EventType

_DEFAULT_HEARTBEAT = 15.0
_MAX_HEARTBEAT = 60.0
_DEFAULT_IDLE = 60 * 60.0
_MAX_IDLE = 24 * 60 * 60.0
_MAX_TYPES = 100
_PAGE_BYTES = 1 << 20
_LOOKED_AT_BYTES = 16 << 20  # stored bytes that one page's filter goes through at most
_NEXT_PAGE_TOKEN = b"\x12"  # ListEventsResponse.next_page_token: field 2, length-delimited


class EventService:
    """Each method as its comment in the contract says."""

    def __init__(self, streaming: Streaming, publisher: Publisher) -> None:
        self._streaming = streaming
        self._engine = streaming.engine
        self._publisher = publisher

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        return grpc.method_handlers_generic_handler(
            pb.DESCRIPTOR.services_by_name["EventService"].full_name,
            {
                "AppendEvents": unary(pb.AppendEventsRequest, self.append_events),
                "PublishEvents": bidi_stream(self._publisher.publish_events),
                "StreamEvents": server_stream(pb.StreamEventsRequest, self.stream_events),
                "ListEvents": unary(pb.ListEventsRequest, self.list_events),
            },
        )

    async def append_events(self, request: pb.AppendEventsRequest, call: Call) -> pb.AppendEventsResponse:
        """See the contract."""
        return pb.AppendEventsResponse(receipt=await self._publisher.append(request, call))

    async def stream_events(self, request: pb.StreamEventsRequest, call: Caller, faced: Frames = frames) -> None:
        """See the contract."""
        options = self._stream_options(request, call)
        outlet = Outlet(call.write, self._streaming.stall_limit)
        await Subscription(self._streaming, options, outlet, faced).deliver()

    async def list_events(self, request: pb.ListEventsRequest, call: Caller) -> bytes:
        """See the contract. A page ends early when it gets large, or when few of many events match."""
        key = RunKey(call.tenant, check_id("run_id", request.run_id))
        position = self._position(key, request.page_token or None, _check_types(request.types))
        page_size = check_page_size("page_size", request.page_size)
        run = await self._engine.get_run(key)
        created_ns = run.create_time.ToNanoseconds()
        position.check(created_ns, run.last_sequence)
        page = EventPage(Selection(position.types, pb.DELTA_MODE_ALL), position.sequence, page_size)
        while page.sequence < run.last_sequence and page.has_room():
            for chunk in await self._engine.read(key, page.sequence, _PAGE_BYTES, created_ns):
                page.add(chunk)
        if is_terminal(run.state) and page.sequence >= run.last_sequence:
            return page.body()
        token = self._streaming.tokens.bookmark(key, position.types, created_ns).at(page.sequence)
        return page.body() + _NEXT_PAGE_TOKEN + varint(len(token)) + token

    def _stream_options(self, request: pb.StreamEventsRequest, call: Caller) -> StreamOptions:
        key = RunKey(call.tenant, check_id("run_id", request.run_id))
        consumer = ConsumerKey(key, check_id("consumer_id", request.consumer_id))
        # Without a session every call is a consumer of its own making, and so a rival of the others.
        session_id = check_id("session_id", request.session_id) if request.session_id else secrets.token_hex(16)
        if request.attempt < 0:
            raise invalid_field("attempt", "must not be negative")
        check_enum("start", request.start, dict(pb.StartPosition.items()))
        check_enum("stop", request.stop, dict(pb.StopPosition.items()))
        check_enum("deltas", request.deltas, dict(pb.DeltaMode.items()))
        token = request.resume_token if request.HasField("resume_token") else None
        remaining = call.time_remaining()
        return StreamOptions(
            consumer=consumer,
            claim=Claim(session_id=session_id, attempt=request.attempt, take_over=request.take_over),
            position=self._position(key, token, _check_types(request.types)),
            from_now=request.start == pb.START_POSITION_NOW,
            to_head=request.stop == pb.STOP_POSITION_HEAD,
            deltas=request.deltas,
            heartbeat_interval=_heartbeat_interval(request),
            idle_timeout=_idle_timeout(request),
            wait_for_run=request.wait_for_run,
            deadline=None if remaining is None else self._streaming.clock.monotonic() + remaining,
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
        self._room = page_size
        self._bytes_room = _PAGE_BYTES
        self._looks = _LOOKED_AT_BYTES
        self._pieces: list[bytes | memoryview] = []

    def has_room(self) -> bool:
        """Tell whether one more event may go in."""
        return self._room > 0 and self._bytes_room > 0 and self._looks > 0

    def add(self, chunk: Chunk) -> None:
        """Take as many of a chunk's events as there is room for."""
        for index in range(self.sequence + 1 - chunk.first_sequence, len(chunk.types)):
            if not self.has_room():
                return
            self.sequence = chunk.first_sequence + index
            self._looks -= chunk.ends[index] - chunk.start(index)
            for piece in self._selection.cut((Span(chunk, index, index + 1),)):
                self._pieces.append(piece)
                self._room -= 1
                self._bytes_room -= len(piece)

    def body(self) -> bytes:
        """The events, as ListEventsResponse has them."""
        return b"".join(self._pieces)


def _check_types(types: Sequence["EventType.ValueType"]) -> int:
    if len(types) > _MAX_TYPES:
        raise invalid_field("types", f"must be at most {_MAX_TYPES}")
    known = set(EventType.values()) - {EventType.EVENT_TYPE_UNSPECIFIED}
    for index, event_type in enumerate(types):
        if event_type not in known:
            raise invalid_field(f"types[{index}]", "must be an EventType that this server knows")
    return type_mask(types)


def _heartbeat_interval(request: pb.StreamEventsRequest) -> float:
    if not request.HasField("heartbeat_interval"):
        return _DEFAULT_HEARTBEAT
    return check_seconds("heartbeat_interval", request.heartbeat_interval, at_least=1, at_most=_MAX_HEARTBEAT)


def _idle_timeout(request: pb.StreamEventsRequest) -> float:
    if not request.HasField("idle_timeout"):
        return _DEFAULT_IDLE
    return check_seconds("idle_timeout", request.idle_timeout, at_least=1, at_most=_MAX_IDLE)
