"""Reading streams over gRPC, part by part of their frames, in the order in which a client handles them."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from lavant.contract.status import STATUS_DETAILS_KEY
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import RunSettings
from lavant.v1.run_service_pb2 import CreateRunRequest, DeleteRunRequest
from support.events import batch_of
from support.server import Stubs

if TYPE_CHECKING:
    FrameCall = aio.UnaryStreamCall[pb.StreamEventsRequest, pb.StreamEventsResponse]

FRAME_LIMIT = 20.0
PARTS = ("opened", "events", "heartbeat", "caught_up", "end")


class StreamCall:
    """A call whose frames are read one part at a time."""

    def __init__(self, call: "FrameCall") -> None:
        self.frames = call
        self.size = 0  # bytes
        self._parts: deque[pb.StreamEventsResponse] = deque()

    async def read(self) -> Any:
        """The next part of a frame, or EOF."""
        if not self._parts:
            frame = await self.frames.read()
            if not isinstance(frame, pb.StreamEventsResponse):
                return frame
            self.size += frame.ByteSize()
            self._parts.extend(parts(frame))
        return self._parts.popleft()

    async def code(self) -> grpc.StatusCode:
        """The status that ended the call."""
        return await self.frames.code()

    def cancel(self) -> bool:
        """End the call."""
        return self.frames.cancel()


@dataclass(slots=True)
class Frames:
    """What came over a stream, up to its end: frames of one part each."""

    all: list[pb.StreamEventsResponse] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """The kind of each frame."""
        return [kind(frame) for frame in self.all]

    @property
    def events(self) -> list[Event]:
        """All events, in the order they came."""
        return [event for frame in self.all for event in frame.events.events]

    @property
    def sequences(self) -> list[int]:
        """The sequences of all events."""
        return [event.sequence for event in self.events]

    @property
    def last(self) -> pb.StreamEventsResponse:
        """The last frame."""
        return self.all[-1]

    def of(self, wanted: str) -> pb.StreamEventsResponse:
        """The only frame of a kind."""
        (found,) = (frame for frame in self.all if kind(frame) == wanted)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The status that ended a call, with its details."""

    code: grpc.StatusCode
    message: str
    reason: str
    retry_after: float | None


def parts(frame: pb.StreamEventsResponse) -> list[pb.StreamEventsResponse]:
    """A frame as frames of one part each, in order, with their tokens: only events move the position."""
    fields = [name for name in PARTS if frame.HasField(name)]  # type: ignore[arg-type]
    split = [
        pb.StreamEventsResponse(resume_token=frame.resume_token, **{name: getattr(frame, name)}) for name in fields
    ]
    if frame.HasField("opened"):
        split[0].resume_token = frame.opened.start_token
    return split


def kind(frame: pb.StreamEventsResponse) -> str:
    """Which part a frame of one part has: opened, events, heartbeat, caught_up or end."""
    (name,) = (name for name in PARTS if frame.HasField(name))  # type: ignore[arg-type]
    return name


def asked(**fields: Any) -> pb.StreamEventsRequest:
    """A request for a stream of the run "run" by the consumer "ui", by default."""
    return pb.StreamEventsRequest(**{"run_id": "run", "consumer_id": "ui", **fields})


def stream(stubs: Stubs, *, timeout: float | None = None, **fields: Any) -> StreamCall:
    """Open a stream; `timeout` is the call's deadline in seconds."""
    return StreamCall(stubs.events.StreamEvents(asked(**fields), timeout=timeout))


async def read(call: StreamCall) -> pb.StreamEventsResponse:
    """The next frame, which must be there soon."""
    async with asyncio.timeout(FRAME_LIMIT):
        frame = await call.read()
    assert isinstance(frame, pb.StreamEventsResponse), f"the stream ended with {await call.code()}"
    return frame


async def read_until(call: StreamCall, wanted: str | Callable[[Frames], bool], frames: Frames | None = None) -> Frames:
    """Read up to the first frame of a kind, or until what came meets a condition."""
    frames = frames or Frames()
    while True:
        frames.all.append(await read(call))
        if wanted == kind(frames.last) if isinstance(wanted, str) else wanted(frames):
            return frames


async def read_to_end(call: StreamCall, frames: Frames | None = None) -> Frames:
    """Read all frames of a stream, whose end must be in good order."""
    frames = frames or Frames()
    async with asyncio.timeout(FRAME_LIMIT):
        while isinstance(frame := await call.read(), pb.StreamEventsResponse):
            frames.all.append(frame)
        assert await call.code() == grpc.StatusCode.OK
    assert kind(frames.last) == "end"
    return frames


async def streamed(stubs: Stubs, **fields: Any) -> Frames:
    """Open a stream and read it to its end."""
    return await read_to_end(stream(stubs, **fields))


async def opened(stubs: Stubs, *, timeout: float | None = None, **fields: Any) -> StreamCall:
    """Open a stream and read its first frame: from here on it holds its lease."""
    call = stream(stubs, timeout=timeout, **fields)
    assert kind(await read(call)) == "opened"
    return call


async def failure(call: StreamCall, frames: Frames | None = None) -> Failure:
    """Read what is left, and return the status that ends the call: it must be an error."""
    frames = frames or Frames()
    try:
        async with asyncio.timeout(FRAME_LIMIT):
            while isinstance(frame := await call.read(), pb.StreamEventsResponse):
                frames.all.append(frame)
    except aio.AioRpcError as error:
        return described(error)
    raise AssertionError(f"the call ended with {await call.code()}")


async def refused(stubs: Stubs, **fields: Any) -> Failure:
    """Open a stream that must be refused before its first frame."""
    call = stream(stubs, **fields)
    try:
        async with asyncio.timeout(FRAME_LIMIT):
            frame = await call.read()
    except aio.AioRpcError as error:
        return described(error)
    raise AssertionError(f"the stream began with {frame}")


async def create(stubs: Stubs, run_id: str = "run") -> None:
    """Create a run."""
    await stubs.runs.CreateRun(CreateRunRequest(run_id=run_id, settings=RunSettings(name="weather")))


async def delete(stubs: Stubs, run_id: str = "run") -> None:
    """Delete a run."""
    await stubs.runs.DeleteRun(DeleteRunRequest(run_id=run_id))


async def append(stubs: Stubs, events: Iterable[Event], *, first: int = 1, run_id: str = "run") -> None:
    """Append one batch."""
    await stubs.events.AppendEvents(pb.AppendEventsRequest(batch=batch_of(events, first=first, run_id=run_id)))


async def publish(
    stubs: Stubs, events: Sequence[Event], *, batch_size: int = 100, first: int = 1, run_id: str = "run"
) -> None:
    """Append events in batches of a size, the first of them with a producer sequence."""
    for start in range(0, len(events), batch_size):
        await append(stubs, events[start : start + batch_size], first=first + start, run_id=run_id)


async def recorded(stubs: Stubs, run_id: str = "run") -> list[Event]:
    """The log, read in pages."""
    events: list[Event] = []
    token = ""
    while True:
        page = await stubs.events.ListEvents(pb.ListEventsRequest(run_id=run_id, page_size=1_000, page_token=token))
        events += page.events
        token = page.next_page_token
        if not token or not page.events:
            return events


def described(error: aio.AioRpcError) -> Failure:
    """The status of a call that failed."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY:
            status.ParseFromString(value if isinstance(value, bytes) else value.encode())
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    has_retry = _unpacked(status, retry)
    _unpacked(status, info)
    return Failure(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None,
    )


def _unpacked(status: status_pb2.Status, message: Message) -> bool:
    return any(detail.Unpack(message) for detail in status.details if detail.Is(message.DESCRIPTOR))
