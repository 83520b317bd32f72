"""When a stream wakes, owes a heartbeat, and ends by itself."""

import asyncio
from math import ceil, floor, log10

import pytest

from lavant.server.streaming.pacing import Pacer
from lavant.server.streaming.timers import CoarseTimers
from lavant.v1.event_service_pb2 import StreamEndReason
from support.clock import ManualClock

DEADLINE = StreamEndReason.STREAM_END_REASON_DEADLINE
MAX_AGE = StreamEndReason.STREAM_END_REASON_MAX_AGE
IDLE = StreamEndReason.STREAM_END_REASON_IDLE
NEVER = float("inf")


def pace(
    clock: ManualClock,
    *,
    heartbeat: float = 15,
    idle: float = 60,
    max_age: float = 100,
    deadline: float | None = None,
) -> Pacer:
    """Make a pacer; the deadline is in seconds from now."""
    at = None if deadline is None else clock.monotonic() + deadline
    return Pacer(CoarseTimers(clock), heartbeat=heartbeat, idle=idle, max_age=max_age, deadline=at)


def ends_after(clock: ManualClock, pacer: Pacer) -> float:
    """Return the seconds until the planned end, looking only when something is due."""
    began = clock.monotonic()
    while pacer.planned_end() is None:
        clock.advance(max(0.0, pacer.next_due() - clock.monotonic()))
        pacer.sent(events=True)
    return clock.monotonic() - began


def test_a_heartbeat_is_due_after_silence(clock: ManualClock) -> None:
    pacer, began = pace(clock), clock.monotonic()
    assert pacer.next_due() == began + 15
    clock.advance(14.75)
    assert not pacer.heartbeat_due()
    clock.advance(0.25)
    assert pacer.heartbeat_due()
    pacer.sent(events=False)
    clock.advance(14.75)
    assert not pacer.heartbeat_due()
    assert pacer.next_due() == began + 30


def test_only_events_put_off_the_end_for_want_of_them(clock: ManualClock) -> None:
    pacer = pace(clock, heartbeat=1_000)
    clock.advance(30)
    pacer.sent(events=False)
    clock.advance(29)
    assert pacer.planned_end() is None
    pacer.sent(events=True)
    clock.advance(40.75)
    assert pacer.planned_end() is None
    clock.advance(0.25)
    assert pacer.planned_end() == MAX_AGE


def test_without_events_the_end_is_idle(clock: ManualClock) -> None:
    pacer = pace(clock)
    clock.advance(59.75)
    assert pacer.planned_end() is None
    clock.advance(0.25)
    assert pacer.planned_end() == IDLE


def test_the_deadline_comes_before_other_reasons(clock: ManualClock) -> None:
    with_deadline, without = pace(clock, deadline=30), pace(clock)
    clock.advance(500)
    assert with_deadline.planned_end() == DEADLINE
    assert without.planned_end() == MAX_AGE


@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.9, 1.0])
def test_a_near_deadline_ends_the_stream_half_way(clock: ManualClock, left: float) -> None:
    assert ends_after(clock, pace(clock, deadline=left)) == pytest.approx(left / 2)


@pytest.mark.parametrize("left", [1.011, 1.234, 9.991, 10.01, 40.05, 99.91, 100.5, 200.1, 1_000.5, 3_601, 90_001])
def test_a_far_deadline_is_kept_although_it_comes_with_three_digits(clock: ManualClock, left: float) -> None:
    """Half a second before it at the latest, and no more than a hundredth earlier."""
    unit = 10 ** (floor(log10(left)) - 2)
    told = ceil(left / unit) * unit
    pacer = pace(clock, heartbeat=1e6, idle=1e6, max_age=1e6, deadline=told)
    assert min(left - 0.5 - 0.01 * told, left / 2) <= ends_after(clock, pacer) <= max(left - 0.5, told / 2)


def test_a_deadline_that_has_passed_ends_the_stream_now(clock: ManualClock) -> None:
    assert pace(clock, deadline=-1).planned_end() == DEADLINE


async def test_a_wake_before_the_sleep_ends_it_at_once(clock: ManualClock) -> None:
    pacer = pace(clock)
    pacer.wake()
    await pacer.sleep(NEVER)
    sleeping = asyncio.create_task(pacer.sleep(NEVER))
    await clock.awaited(15)
    assert not sleeping.done()
    pacer.wake()
    await sleeping


@pytest.mark.parametrize(("until", "seconds"), [(NEVER, 15.0), (4.25, 4.25)])
async def test_a_sleep_ends_at_what_is_due_first(clock: ManualClock, until: float, seconds: float) -> None:
    sleeping = asyncio.create_task(pace(clock).sleep(clock.monotonic() + until))
    await clock.awaited(seconds)
    clock.advance(seconds)
    await sleeping
