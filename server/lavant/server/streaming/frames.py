"""Frames of streams: StreamEventsResponse on the wire, joined from stored bytes and never parsed, and their writer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.clock import SystemClock
from lavant.server.errors import ServiceError
from lavant.server.store.chunk import varint
from lavant.server.streaming.timers import CoarseTimers
from lavant.server.streaming.tokens import TokenIssuer
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_service_pb2 import CaughtUp, Heartbeat, StreamEnd, StreamEndReason, StreamOpened
from lavant.v1.run_pb2 import Run

key = "grpc"
MAX_FRAME_BYTES = 256 * 1024
RESUME_DELAY = 1.0  # seconds that a slow reader should wait before it resumes

_TOKEN = b"\x0a"  # StreamEventsResponse.resume_token: field 1, length-delimited
_OPENED, _EVENTS, _HEARTBEAT, _CAUGHT_UP, _END = b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32"  # fields 2 to 6


Pieces = Sequence[bytes | memoryview]  # to be joined


class Encoder(Protocol):
    """Encodes the parts of frames, and joins parts to a frame: this module for gRPC, server-sent events for HTTP.

    `sequence` is the position after a part, whose token `tokens` issues. Encoders with the same `key` encode events as
    the same bytes; None: no other encoder does.
    """

    @property
    def key(self) -> object:
        """Key of the encoders that share frames of events."""

    def opened(
        self,
        tokens: TokenIssuer,
        sequence: int,
        run: Run | None,
        /,
        *,
        fence: int,
        max_age: float,
        heartbeat_interval: float,
    ) -> Pieces:
        """Encode the opening of a stream. Without a run, the stream waits for it to be created."""

    async def events(self, tokens: TokenIssuer, sequence: int, events: Pieces) -> Pieces:
        """Encode events, which are pieces of an EventBatch."""

    def caught_up(self, tokens: TokenIssuer, sequence: int, last_sequence: int) -> Pieces:
        """Encode that all recorded events are sent."""

    def heartbeat(
        self, tokens: TokenIssuer, sequence: int, *, server_ns: int, last_sequence: int, producer_seen_ns: int
    ) -> Pieces:
        """Encode a heartbeat."""

    def end(
        self,
        tokens: TokenIssuer,
        sequence: int,
        reason: "StreamEndReason.ValueType",
        *,
        reconnect: bool,
        retry_delay: float = 0,
    ) -> Pieces:
        """Encode the end of a stream."""

    def frame(self, tokens: TokenIssuer, sequence: int, parts: Pieces) -> bytes:
        """Join parts, in the order of StreamEventsResponse, to a frame."""


class StallWatch:
    """Ends writes that flow control does not accept for `limit` seconds of real time, all with the same few timers."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._timers = CoarseTimers(SystemClock(), keeps_ticks=True)

    def start(self, callback: Callable[[], None]) -> int:
        """Call back when a write that starts now has stalled."""
        return self._timers.start(self._timers.clock.monotonic() + self.limit, callback)

    def stop(self, tick: int, callback: Callable[[], None]) -> None:
        """Note that the write has ended."""
        self._timers.stop(tick, callback)


class FrameWriter:
    """Writes the frames of one call, one at a time.

    A write returns once flow control has accepted the frame: until then the frame is all the memory that a reader who
    does not read costs. gRPC keeps a frame whose write is cancelled, for as long as the call is open, and sends no
    status before it. So no write is cancelled for being slow: `on_stall` is called after the stall limit, to free what
    else the stream holds, and the call stays open, and counted, until the frame is accepted or the peer has gone.
    """

    __slots__ = ("_is_stalled", "_on_stall", "_watch", "_write", "is_writing", "reader_gone")

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        watch: StallWatch,
        on_stall: Callable[[], None] = lambda: None,
    ) -> None:
        self._write = write
        self._watch = watch
        self._on_stall = on_stall
        self._is_stalled = False
        self.is_writing = False
        self.reader_gone = False

    async def send(self, frame: bytes) -> None:
        """Write one frame. Raises SLOW_CONSUMER if that took longer than the stall limit: write no more then."""
        tick = self._watch.start(self._stall)
        self.is_writing = True
        try:
            await self._write(frame)
        except asyncio.CancelledError:
            raise
        except Exception:
            self.reader_gone = True
            raise
        finally:
            self.is_writing = False
            self._watch.stop(tick, self._stall)
        if self._is_stalled:
            raise ServiceError(
                ErrorReason.ERROR_REASON_SLOW_CONSUMER,
                f"nothing was accepted for {self._watch.limit:g} s; read faster, or resume when ready",
                retry_after=RESUME_DELAY,
            )

    def _stall(self) -> None:
        self._is_stalled = True
        self._on_stall()


def opened(
    tokens: TokenIssuer, sequence: int, run: Run | None, *, fence: int, max_age: float, heartbeat_interval: float
) -> Pieces:
    """Encode the opening of a stream. Without a run, the stream waits for it to be created."""
    message = StreamOpened(
        run=run,
        fence=fence,
        max_age=duration(max_age),
        heartbeat_interval=duration(heartbeat_interval),
        start_token=tokens.at(sequence).decode(),
    )
    return _part(_OPENED, message)


async def events(_tokens: TokenIssuer, _sequence: int, events: Pieces) -> Pieces:
    """Encode events without parsing them."""
    return (_EVENTS, varint(sum(map(len, events))), *events)


def caught_up(_tokens: TokenIssuer, _sequence: int, last_sequence: int) -> Pieces:
    """Encode that all recorded events are sent."""
    return _part(_CAUGHT_UP, CaughtUp(last_sequence=last_sequence))


def heartbeat(
    _tokens: TokenIssuer, _sequence: int, *, server_ns: int, last_sequence: int, producer_seen_ns: int
) -> Pieces:
    """Encode a heartbeat."""
    seen = timestamp(producer_seen_ns) if producer_seen_ns else None
    message = Heartbeat(server_time=timestamp(server_ns), last_sequence=last_sequence, producer_seen_time=seen)
    return _part(_HEARTBEAT, message)


def end(
    _tokens: TokenIssuer,
    _sequence: int,
    reason: "StreamEndReason.ValueType",
    *,
    reconnect: bool,
    retry_delay: float = 0,
) -> Pieces:
    """Encode the end of a stream."""
    delay = duration(retry_delay) if reconnect else None
    return _part(_END, StreamEnd(reason=reason, reconnect=reconnect, retry_delay=delay))


def frame(tokens: TokenIssuer, sequence: int, parts: Pieces) -> bytes:
    """Join parts to a StreamEventsResponse."""
    token = tokens.at(sequence)
    return b"".join((_TOKEN, varint(len(token)), token, *parts))


def duration(seconds: float) -> Duration:
    """Return seconds, at least 0, as a Duration."""
    whole, nanos = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)


def timestamp(ns: int) -> Timestamp:
    """Return nanoseconds since 1970 as a Timestamp."""
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)


def _part(tag: bytes, message: Message) -> Pieces:
    body = message.SerializeToString()
    return (tag, varint(len(body)), body)
