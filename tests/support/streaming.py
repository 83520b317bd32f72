"""Subscriptions without a network: what the server would write is kept in a list."""

from dataclasses import dataclass, field
from random import Random

from lavant.server.auth.signing import Signer
from lavant.server.clock import Clock
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.port import Engine, Holder, Leases
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.frames import StallWatch
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.leases import ConsumerLeases
from lavant.server.streaming.subscription import Streaming, StreamOptions, Subscription
from lavant.server.streaming.timers import CoarseTimers
from lavant.server.streaming.tokens import Position, ResumeTokens
from lavant.v1.event_service_pb2 import DeltaMode, StreamEventsResponse
from support.streams import Frames, parts

STALL_LIMIT = 5.0


@dataclass(slots=True)
class Written:
    """Takes the frames of one call."""

    frames: Frames = field(default_factory=Frames)

    async def write(self, data: bytes) -> None:
        """Accept a frame."""
        self.frames.all += parts(StreamEventsResponse.FromString(data))


def streaming(engine: Engine, clock: Clock, *, leases: Leases | None = None, max_age: float = 1_800) -> Streaming:
    """What all streams of a server share, put together around an engine."""
    return Streaming(
        engine=engine,
        hub=Hub(engine, 1 << 16),
        leases=ConsumerLeases(leases or engine.leases, clock),
        tokens=ResumeTokens(Signer({"key": b"k" * 32}), engine.identity.epoch),
        calls=Calls(1_000, clock),
        clock=clock,
        random=Random(1),
        max_age=max_age,
        stalls=StallWatch(STALL_LIMIT),
        timers=CoarseTimers(clock),
    )


def options(
    key: RunKey,
    *,
    types: int = 0,
    session_id: str = "one",
    heartbeat_interval: float = 15,
    idle_timeout: float = 3_600,
    to_head: bool = False,
    wait_for_run: bool = False,
) -> StreamOptions:
    """What a reader asks for who begins at the beginning."""
    return StreamOptions(
        consumer=ConsumerKey(key, "ui"),
        holder=Holder(session_id=session_id, attempt=1),
        position=Position(sequence=0, types=types, created_ns=0),
        from_now=False,
        to_head=to_head,
        deltas=DeltaMode.DELTA_MODE_ALL,
        heartbeat_interval=heartbeat_interval,
        idle_timeout=idle_timeout,
        ends_when_idle=False,
        wait_for_run=wait_for_run,
        deadline=None,
    )


async def delivered(shared: Streaming, wanted: StreamOptions, written: Written) -> None:
    """Run a subscription to its end."""
    await Subscription(shared, wanted, written.write).deliver()
