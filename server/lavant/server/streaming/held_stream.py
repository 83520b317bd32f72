"""What streams have in common that hold a consumer's place: from taking it to giving it back, and sleep between."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from random import Random

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, unavailable
from lavant.server.measures import StreamMeasures
from lavant.server.model import ConsumerKey
from lavant.server.store.port import Claim, Engine
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.outlet import Outlet
from lavant.server.streaming.places import Place, Places
from lavant.server.streaming.timetable import Timetable
from lavant.server.streaming.tokens import ResumeTokens
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_service_pb2 import StreamEndReason

_DRAIN_SPREAD = 2.0  # seconds over which the readers of a draining server come back
_MAX_AGE_JITTER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """What all streams of a server share. Times are in seconds."""

    engine: Engine
    hub: Hub
    places: Places
    tokens: ResumeTokens
    calls: Calls
    clock: Clock
    random: Random
    max_age: float
    stall_limit: float
    measures: StreamMeasures = field(default_factory=StreamMeasures)


class HeldStream(ABC):
    """One stream that holds its consumer's place.

    The place is given back before the last frame or the error goes out. Memory: one frame, whatever the reader does.
    """

    __slots__ = ("_awake", "_claim", "_consumer", "_max_age", "_outlet", "_shared", "_sleeper", "_times")

    def __init__(
        self,
        shared: Streaming,
        outlet: Outlet,
        consumer: ConsumerKey,
        claim: Claim,
        *,
        heartbeat: float,
        idle: float,
        deadline: float | None,
    ) -> None:
        self._shared = shared
        self._outlet = outlet
        self._consumer = consumer
        self._claim = claim
        self._awake = False
        self._sleeper: asyncio.Future[None] | None = None
        self._max_age = shared.max_age * shared.random.uniform(1 - _MAX_AGE_JITTER, 1 + _MAX_AGE_JITTER)
        self._times = Timetable(
            shared.clock.monotonic(), heartbeat=heartbeat, idle=idle, max_age=self._max_age, deadline=deadline
        )

    def wake(self) -> None:
        """Have the stream look again at what there is to do."""
        self._awake = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    @abstractmethod
    async def _stream(self, place: Place) -> bytes:
        """Send all there is until an end is reached, and return the last frame."""

    async def _hold_place(self) -> None:
        places = self._shared.places
        place = await places.take(self._consumer, self._claim, self._on_place_lost)
        try:
            end = await self._stream(place)
            await places.give_back(place)
            await self._outlet.send(end)
            self._shared.measures.sent(len(end))
        except LavantError as error:
            expired = self._shared.clock.monotonic() >= place.usable_until
            await places.give_back(place)
            if place.lost:
                raise _displaced() from None
            raise (_not_renewed() if expired else error) from None
        finally:
            places.abandon(place)

    def _check(self, place: Place) -> None:
        """Raise what ends a stream that may send no more."""
        if place.lost:
            raise _displaced()
        if self._shared.clock.monotonic() >= place.usable_until:
            raise _not_renewed()

    def _reached(self) -> "StreamEndReason.ValueType | None":
        """Why the stream has to end by now, if it has to."""
        if self._shared.calls.draining:
            return StreamEndReason.STREAM_END_REASON_DRAINING
        return self._times.planned_end(self._shared.clock.monotonic())

    def _retry_delay(self, reason: "StreamEndReason.ValueType") -> float:
        """After how many seconds to come back: the readers of a draining server do it one after the other."""
        draining = reason == StreamEndReason.STREAM_END_REASON_DRAINING
        return self._shared.random.uniform(0, _DRAIN_SPREAD) if draining else 0

    async def _sleep(self, place: Place, until: float = float("inf")) -> None:
        """Wait until something happens or is due."""
        if self._awake:
            return
        self._sleeper = asyncio.get_running_loop().create_future()
        due = min(self._times.next_due(), place.usable_until, until)
        timer = self._shared.clock.call_at(due, self.wake)
        try:
            await self._sleeper
        finally:
            self._sleeper = None
            timer.cancel()

    def _on_place_lost(self) -> None:
        self._outlet.interrupt()
        self.wake()


def _not_renewed() -> LavantError:
    return unavailable("the hold on the consumer's place could not be renewed; resume")


def _displaced() -> LavantError:
    return LavantError(
        ErrorReason.ERROR_REASON_STREAM_DISPLACED, "a newer stream of this consumer took this one's place"
    )
