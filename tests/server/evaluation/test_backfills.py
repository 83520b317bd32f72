"""Pauses, and backfills of runs that a rule has not examined."""

import asyncio
from datetime import UTC, datetime

from support.clock import ManualClock
from support.rules import Worker, backfill, create_rule, evaluated_runs, finish, get_rule, results, update_rule
from support.server import Stubs
from support.status import refused


def at(clock: ManualClock) -> datetime:
    """The wall time."""
    return datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)


async def test_a_paused_rule_selects_nothing_and_its_pause_is_left_to_a_backfill(stubs: Stubs) -> None:
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
    found = (await get_rule(stubs)).backfill
    assert (found.done, found.runs_examined, found.runs_selected) == (True, 1, 1)


async def test_a_backfill_examines_runs_that_ended_before_the_rule(stubs: Stubs) -> None:
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
    assert rule.progress.runs_selected == 31


async def test_windows_are_examined_once(stubs: Stubs, clock: ManualClock) -> None:
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
    assert (await get_rule(stubs)).progress.runs_examined == 4


async def test_only_one_backfill_runs_at_a_time(stubs: Stubs, clock: ManualClock) -> None:
    await finish(stubs, ["old"])
    await create_rule(stubs)
    looking = await backfill(stubs)
    assert await backfill(stubs) == looking
    with refused("BACKFILL_UNDER_WAY"):
        await backfill(stubs, created_before=at(clock))
    worker = await Worker(stubs).opened()
    await worker.got(1)
    assert (await backfill(stubs, created_before=at(clock))).backfill.created_before.ToDatetime(UTC) == at(clock)


async def test_a_backfill_runs_while_live_runs_finish(stubs: Stubs) -> None:
    old = await finish(stubs, [f"old-{number}" for number in range(20)])
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await backfill(stubs)
    live = asyncio.ensure_future(finish(stubs, [f"live-{number}" for number in range(20)]))
    await worker.got(40)
    await worker.complete(*worker.run_ids)
    assert sorted(evaluated_runs(await results(stubs, segments=2))) == sorted([*old, *await live])
    assert [run_id for run_id in worker.run_ids if run_id.startswith("live")] == await live


async def test_a_backfill_of_a_paused_rule_waits(stubs: Stubs) -> None:
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
