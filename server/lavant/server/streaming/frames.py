"""StreamEventsResponse on the wire: event frames are joined from stored bytes, never parsed."""

from collections.abc import Sequence
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.store.chunk import varint
from lavant.server.streaming.tokens import Bookmark
from lavant.v1.event_service_pb2 import CaughtUp, Heartbeat, StreamEnd, StreamEndReason, StreamOpened
from lavant.v1.run_pb2 import Run

MAX_FRAME_BYTES = 256 * 1024

_TOKEN = b"\x0a"  # StreamEventsResponse.resume_token: field 1, length-delimited
_OPENED, _EVENTS, _HEARTBEAT, _CAUGHT_UP, _END = b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32"  # fields 2 to 6


class Frames(Protocol):
    """How a stream is written: this module for gRPC, server-sent events for HTTP."""

    def opened_frame(
        self, token: bytes, run: Run | None, fence: int, max_age: float, heartbeat_interval: float
    ) -> bytes:
        """The first frame. Without a run, the stream waits for it to be created."""

    def events_frame(self, bookmark: Bookmark, sequence: int, pieces: Sequence[bytes | memoryview]) -> bytes:
        """Pieces of EventBatch, up to a sequence."""

    def heartbeat_frame(self, token: bytes, server_ns: int, last_sequence: int, producer_seen_ns: int) -> bytes:
        """A sign of life."""

    def caught_up_frame(self, token: bytes, last_sequence: int) -> bytes:
        """All that was recorded is sent."""

    def end_frame(
        self, token: bytes, reason: "StreamEndReason.ValueType", *, reconnect: bool, retry_delay: float = 0
    ) -> bytes:
        """The last frame."""


def events_frame(bookmark: Bookmark, sequence: int, pieces: Sequence[bytes | memoryview]) -> bytes:
    """Frame pieces of EventBatch."""
    token = bookmark.at(sequence)
    size = sum(len(piece) for piece in pieces)
    return b"".join((_TOKEN, varint(len(token)), token, _EVENTS, varint(size), *pieces))


def opened_frame(token: bytes, run: Run | None, fence: int, max_age: float, heartbeat_interval: float) -> bytes:
    """The first frame. Without a run, the stream waits for it to be created."""
    opened = StreamOpened(
        run=run, fence=fence, max_age=duration(max_age), heartbeat_interval=duration(heartbeat_interval)
    )
    return _frame(token, _OPENED, opened)


def heartbeat_frame(token: bytes, server_ns: int, last_sequence: int, producer_seen_ns: int) -> bytes:
    """A sign of life."""
    seen = timestamp(producer_seen_ns) if producer_seen_ns else None
    beat = Heartbeat(server_time=timestamp(server_ns), last_sequence=last_sequence, producer_seen_time=seen)
    return _frame(token, _HEARTBEAT, beat)


def caught_up_frame(token: bytes, last_sequence: int) -> bytes:
    """All that was recorded is sent."""
    return _frame(token, _CAUGHT_UP, CaughtUp(last_sequence=last_sequence))


def end_frame(token: bytes, reason: "StreamEndReason.ValueType", *, reconnect: bool, retry_delay: float = 0) -> bytes:
    """The last frame."""
    delay = duration(retry_delay) if reconnect else None
    return _frame(token, _END, StreamEnd(reason=reason, reconnect=reconnect, retry_delay=delay))


def duration(seconds: float) -> Duration:
    """Seconds as protobuf has them."""
    result = Duration()
    result.FromNanoseconds(round(seconds * 1e9))
    return result


def timestamp(ns: int) -> Timestamp:
    """Nanoseconds since 1970 as protobuf has them."""
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)


def _frame(token: bytes, tag: bytes, message: Message) -> bytes:
    body = message.SerializeToString()
    return b"".join((_TOKEN, varint(len(token)), token, tag, varint(len(body)), body))
