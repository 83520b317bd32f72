"""Pauses, and the look back at runs that a rule has not seen."""

import asyncio
from datetime import UTC, datetime

from support.clock import ManualClock
from support.rules import Worker, backfill, create_rule, finish, get_rule, judged, results, update_rule
from support.server import Stubs
from support.status import refused


def at(clock: ManualClock) -> datetime:
    """The wall time."""
    return datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)


async def test_a_paused_rule_draws_nothing_and_its_pause_is_left_to_a_look_back(stubs: Stubs) -> None:
    rule = await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["before"])
    await worker.got(1)
    rule.paused = True
    rule = await update_rule(stubs, rule)
    await finish(stubs, ["meanwhile"])
    rule.paused = False
    rule = await update_rule(stubs, rule)
    await finish(stubs, ["after"])
    assert await worker.got(2) == ["before", "after"]
    await backfill(stubs)
    assert await worker.got(3) == ["before", "after", "meanwhile"]
    look = (await get_rule(stubs)).backfill
    assert (look.done, look.runs_seen, look.runs_drawn) == (True, 1, 1)


async def test_a_look_back_sees_what_was_before_the_rule(stubs: Stubs) -> None:
    old = await finish(stubs, [f"old-{number}" for number in range(30)])
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await worker.caught_up()
    assert not worker.samples
    assert (await backfill(stubs)).backfill.done is False
    assert sorted(await worker.got(30)) == sorted(old)
    await worker.complete(*old)
    await backfill(stubs)
    await finish(stubs, ["new"])
    await worker.got(31)
    rule = await get_rule(stubs)
    assert rule.backfill.done
    assert rule.progress.runs_drawn == 31


async def test_windows_are_looked_at_once(stubs: Stubs, clock: ManualClock) -> None:
    times = [at(clock)]
    for number in range(4):
        await finish(stubs, [f"run-{number}"])
        clock.advance(1)
        times.append(at(clock))
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await backfill(stubs, created_after=times[1], created_before=times[3])
    assert await worker.got(2) == ["run-1", "run-2"]
    await backfill(stubs, created_before=times[2])
    assert await worker.got(3) == ["run-1", "run-2", "run-0"]
    await backfill(stubs)
    assert await worker.got(4) == ["run-1", "run-2", "run-0", "run-3"]
    assert (await get_rule(stubs)).progress.runs_seen == 4


async def test_one_look_back_at_a_time(stubs: Stubs, clock: ManualClock) -> None:
    await finish(stubs, ["old"])
    await create_rule(stubs)
    looking = await backfill(stubs)
    assert await backfill(stubs) == looking
    with refused("BACKFILL_UNDER_WAY"):
        await backfill(stubs, created_before=at(clock))
    worker = await Worker(stubs).opened()
    await worker.got(1)
    assert (await backfill(stubs, created_before=at(clock))).backfill.created_before.ToDatetime(UTC) == at(clock)


async def test_a_look_back_while_live_runs_finish(stubs: Stubs) -> None:
    old = await finish(stubs, [f"old-{number}" for number in range(20)])
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await backfill(stubs)
    live = asyncio.ensure_future(finish(stubs, [f"live-{number}" for number in range(20)]))
    await worker.got(40)
    await worker.complete(*worker.run_ids)
    assert sorted(judged(await results(stubs, segments=2))) == sorted([*old, *await live])
    assert [run_id for run_id in worker.run_ids if run_id.startswith("live")] == await live


async def test_a_look_back_of_a_paused_rule_waits(stubs: Stubs) -> None:
    await finish(stubs, ["old"])
    rule = await create_rule(stubs, paused=True)
    await finish(stubs, ["new"])
    worker = await Worker(stubs).opened()
    rule = await backfill(stubs)
    await worker.caught_up()
    assert not worker.samples
    rule.paused = False
    await update_rule(stubs, rule)
    assert sorted(await worker.got(2)) == ["new", "old"]
