"""Coarse timers: when they run, and that stopped ones leave nothing behind."""

from functools import partial

from lavant.server.streaming.timers import TICKS_PER_SECOND, CoarseTimers
from support.clock import ManualClock

TICK = 1 / TICKS_PER_SECOND


def test_timers_of_one_tick_run_together_at_its_end(clock: ManualClock) -> None:
    timers, run = CoarseTimers(clock), list[str]()
    for name, seconds in (("early", TICK / 4), ("late", TICK), ("later", TICK + TICK / 4)):
        timers.start(clock.monotonic() + seconds, partial(run.append, name))
    clock.advance(TICK * 3 / 4)
    assert run == []
    clock.advance(TICK / 4)
    assert sorted(run) == ["early", "late"]
    clock.advance(TICK)
    assert run[2:] == ["later"]


def test_stopped_timers_do_not_run_and_free_the_clocks_timer(clock: ManualClock) -> None:
    timers, run = CoarseTimers(clock), list[str]()
    one, other = partial(run.append, "one"), partial(run.append, "other")
    tick = timers.start(clock.monotonic() + 1, one)
    assert timers.start(clock.monotonic() + 1, other) == tick
    timers.stop(tick, one)
    assert clock.due(1)
    timers.stop(tick, other)
    timers.stop(tick, other)
    assert not clock.due(1)
    timers.start(clock.monotonic() + 1, one)
    clock.advance(1)
    timers.stop(tick, one)
    assert run == ["one"]


def test_kept_ticks_serve_the_next_timer(clock: ManualClock) -> None:
    timers, run = CoarseTimers(clock, keeps_ticks=True), list[str]()
    one = partial(run.append, "one")
    timers.stop(timers.start(clock.monotonic() + 1, one), one)
    assert clock.due(1)
    timers.start(clock.monotonic() + 1, partial(run.append, "other"))
    clock.advance(1)
    assert run == ["other"]
    assert not clock.due(0)
