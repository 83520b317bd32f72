"""The times of a stream: its sleep, its heartbeats, and the ends that it reaches by itself."""

import asyncio
from math import ceil, floor, log2

from lavant.server.streaming.timers import TICKS_PER_SECOND, CoarseTimers
from lavant.v1.event_service_pb2 import (
    STREAM_END_REASON_CREDENTIAL_EXPIRED,
    STREAM_END_REASON_DEADLINE,
    STREAM_END_REASON_IDLE,
    STREAM_END_REASON_MAX_AGE,
    StreamEndReason,
)

_DEADLINE_MARGIN = 0.5  # seconds before its deadline at which a call ends itself
_EXPIRY_MARGIN = 0.5  # seconds before its credential expires at which a call ends itself
_DEADLINE_ROUNDING = 0.01  # gRPC's C core sends the time left with three digits, rounded up: as much may be missing


def _grain(heartbeat: float) -> float:
    """Return the grid on which heartbeats fall, in seconds: about a sixteenth of their interval.

    Those of many idle streams then go out together, which takes far less time than one by one.
    """
    return max(1 / TICKS_PER_SECOND, min(1.0, 2.0 ** floor(log2(heartbeat / 16))))


def time_to_end(time_remaining: float) -> float:
    """Return after how many seconds a call ends itself that has so many until its deadline."""
    return max(time_remaining * (1 - _DEADLINE_ROUNDING) - _DEADLINE_MARGIN, time_remaining / 2)


def time_left(expires_ns: int | None, now_ns: int) -> float:
    """Return for how many seconds a credential is valid that expires at a wall time; infinity if it never does."""
    return float("inf") if expires_ns is None else max(0, (expires_ns - now_ns) / 1e9)


def time_to_expiry(expires_ns: int | None, now_ns: int) -> float:
    """Return after how many seconds a call ends itself whose credential expires at a wall time, if ever."""
    left = time_left(expires_ns, now_ns)
    return max(left - _EXPIRY_MARGIN, left / 2)


class Pacer:
    """The times of one stream, in seconds of the clock's monotonic time, and its sleep between them.

    A deadline that is about a second away, or less, ends the stream half-way to it, and so does the expiry of the
    credential, a wall time. `max_age` is given to the reader.
    """

    __slots__ = (
        "_clock", "_ends_by_age_at", "_ends_by_deadline_at", "_ends_by_expiry_at", "_expires_ns", "_grain",
        "_heartbeat", "_idle", "_is_woken", "_last_event_at", "_last_frame_at", "_timers", "_waiter", "max_age",
    )  # fmt: skip

    def __init__(
        self,
        timers: CoarseTimers,
        *,
        heartbeat: float,
        idle: float,
        max_age: float,
        deadline: float | None = None,
        expires_ns: int | None = None,
    ) -> None:
        self._clock = timers.clock
        now = self._clock.monotonic()
        self.max_age = max_age
        self._timers = timers
        self._is_woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._heartbeat = heartbeat
        self._grain = _grain(heartbeat)
        self._idle = idle
        self._last_frame_at = self._last_event_at = now
        self._ends_by_age_at = now + max_age
        self._ends_by_deadline_at = float("inf") if deadline is None else now + time_to_end(deadline - now)
        self._expires_ns = expires_ns
        self._ends_by_expiry_at = now + time_to_expiry(expires_ns, self._clock.time_ns())

    def wake(self) -> None:
        """End the sleep, or the next one: there may be something to send."""
        self._is_woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def sent(self, *, events: bool) -> None:
        """Note that a frame was sent."""
        self._last_frame_at = self._clock.monotonic()
        if events:
            self._last_event_at = self._last_frame_at

    def heartbeat_due(self) -> bool:
        """Return whether nothing was sent for the heartbeat interval, and the next point of the grid is reached."""
        return self._clock.monotonic() >= self._heartbeat_at()

    def planned_end(self) -> "StreamEndReason.ValueType | None":
        """Return why the stream has to end by now, or None."""
        now = self._clock.monotonic()
        if now >= self._ends_by_expiry_at:
            return STREAM_END_REASON_CREDENTIAL_EXPIRED
        if now >= self._ends_by_deadline_at:
            return STREAM_END_REASON_DEADLINE
        if now >= self._ends_by_age_at:
            return STREAM_END_REASON_MAX_AGE
        if now >= self._last_event_at + self._idle:
            return STREAM_END_REASON_IDLE
        return None

    def next_due(self) -> float:
        """Return when a heartbeat or an end is due, if nothing is sent before."""
        return min(
            self._heartbeat_at(),
            self._last_event_at + self._idle,
            self._ends_by_age_at,
            self._ends_by_deadline_at,
            self._ends_by_expiry_at,
        )

    def time_until_expired(self) -> float:
        """Return how many seconds are left until the credential of the call has expired."""
        return time_left(self._expires_ns, self._clock.time_ns())

    def _heartbeat_at(self) -> float:
        return ceil((self._last_frame_at + self._heartbeat) / self._grain) * self._grain

    async def sleep(self, until: float) -> None:
        """Wait until woken, or until a heartbeat, an end, or the time `until` is due."""
        due = min(self.next_due(), until)
        if not self._is_woken and due > self._clock.monotonic():
            self._waiter = asyncio.get_running_loop().create_future()
            tick = self._timers.start(due, self.wake)
            try:
                await self._waiter
            finally:
                self._timers.stop(tick, self.wake)
                self._waiter = None
        self._is_woken = False  # before the caller finds out what there is to send: a later wake is not lost
