"""When a stream owes its reader a sign of life, and when it ends by itself."""

from lavant.v1.event_service_pb2 import StreamEndReason

_DEADLINE_MARGIN = 0.5  # seconds before its deadline at which a call ends itself
_DEADLINE_ROUNDING = 0.01  # gRPC's C core sends the time left with three digits, rounded up: as much may be missing


def time_to_end(time_remaining: float) -> float:
    """After how many seconds a call ends itself that has so many until its deadline."""
    return max(time_remaining * (1 - _DEADLINE_ROUNDING) - _DEADLINE_MARGIN, time_remaining / 2)


class Timetable:
    """The times of one stream, in seconds of monotonic time.

    A deadline that is about a second away, or less, ends the stream half-way to it.
    """

    __slots__ = ("_ends_by_age_at", "_ends_by_deadline_at", "_heartbeat", "_idle", "_last_event_at", "_last_frame_at")

    def __init__(self, now: float, *, heartbeat: float, idle: float, max_age: float, deadline: float | None) -> None:
        self._heartbeat = heartbeat
        self._idle = idle
        self._last_frame_at = self._last_event_at = now
        self._ends_by_age_at = now + max_age
        self._ends_by_deadline_at = float("inf")
        if deadline is not None:
            self._ends_by_deadline_at = now + time_to_end(deadline - now)

    def sent(self, now: float, *, events: bool) -> None:
        """Note that a frame went out."""
        self._last_frame_at = now
        if events:
            self._last_event_at = now

    def heartbeat_due(self, now: float) -> bool:
        """Tell whether there was silence for long enough."""
        return now >= self._last_frame_at + self._heartbeat

    def planned_end(self, now: float) -> "StreamEndReason.ValueType | None":
        """Tell why the stream has to end by now, if it has to."""
        if now >= self._ends_by_deadline_at:
            return StreamEndReason.STREAM_END_REASON_DEADLINE
        if now >= self._ends_by_age_at:
            return StreamEndReason.STREAM_END_REASON_MAX_AGE
        if now >= self._last_event_at + self._idle:
            return StreamEndReason.STREAM_END_REASON_IDLE
        return None

    def next_due(self) -> float:
        """When to look again, if nothing else happens."""
        return min(
            self._last_frame_at + self._heartbeat,
            self._last_event_at + self._idle,
            self._ends_by_age_at,
            self._ends_by_deadline_at,
        )
