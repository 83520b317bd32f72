"""When a stream owes a sign of life, and when it ends by itself."""

from math import ceil, floor, log10

import pytest

from lavant.server.streaming.timetable import Timetable
from lavant.v1.event_service_pb2 import StreamEndReason

DEADLINE = StreamEndReason.STREAM_END_REASON_DEADLINE
MAX_AGE = StreamEndReason.STREAM_END_REASON_MAX_AGE
IDLE = StreamEndReason.STREAM_END_REASON_IDLE
NOW = 1_000.0


def timetable(
    *, heartbeat: float = 15, idle: float = 60, max_age: float = 100, deadline: float | None = None
) -> Timetable:
    return Timetable(NOW, heartbeat=heartbeat, idle=idle, max_age=max_age, deadline=deadline)


def ends_after(times: Timetable) -> float:
    """Seconds until the planned end, found by looking when the timetable says."""
    now = NOW
    while times.planned_end(now) is None:
        now = max(now, times.next_due())
        times.sent(now, events=True)
    return now - NOW


def test_what_is_due_first() -> None:
    times = timetable()
    assert times.next_due() == NOW + 15
    assert not times.heartbeat_due(NOW + 14.9)
    assert times.heartbeat_due(NOW + 15)
    times.sent(NOW + 15, events=False)
    assert not times.heartbeat_due(NOW + 29.9)
    assert times.next_due() == NOW + 30


def test_only_events_put_off_the_end_for_want_of_them() -> None:
    times = timetable(heartbeat=1_000)
    times.sent(NOW + 30, events=False)
    assert times.planned_end(NOW + 59.9) is None
    assert times.planned_end(NOW + 60) == IDLE
    times.sent(NOW + 59, events=True)
    assert times.planned_end(NOW + 99.9) is None
    assert times.planned_end(NOW + 100) == MAX_AGE


def test_the_deadline_comes_before_other_reasons() -> None:
    assert timetable(deadline=NOW + 30).planned_end(NOW + 500) == DEADLINE
    assert timetable().planned_end(NOW + 500) == MAX_AGE


@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.9, 1.0])
def test_a_near_deadline_ends_the_stream_half_way(left: float) -> None:
    times = timetable(deadline=NOW + left)
    assert ends_after(times) == pytest.approx(left / 2)


@pytest.mark.parametrize("left", [1.011, 1.234, 9.991, 10.01, 40.05, 99.91, 100.5, 200.1, 1_000.5, 3_601, 90_001])
def test_a_far_deadline_is_kept_although_it_comes_with_three_digits(left: float) -> None:
    """Half a second before it at the latest, and no more than a hundredth earlier."""
    unit = 10 ** (floor(log10(left)) - 2)
    told = ceil(left / unit) * unit
    times = timetable(heartbeat=1e6, idle=1e6, max_age=1e6, deadline=NOW + told)
    assert min(left - 0.5 - 0.01 * told, left / 2) <= ends_after(times) <= max(left - 0.5, told / 2)


def test_a_deadline_that_has_passed_ends_the_stream_now() -> None:
    assert timetable(deadline=NOW - 1).planned_end(NOW) == DEADLINE
