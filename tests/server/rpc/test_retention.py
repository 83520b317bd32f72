"""Runs are deleted some time after their end, whichever engine keeps them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter
from support.calls import PATIENCE, append, create, until
from support.clock import ManualClock
from support.events import a_run_of
from support.nats import fresh_location, without_streams
from support.rules import create_rule, update_rule
from support.server import Server, Stubs, serving

DAY = 24 * 3600.0
A_LOOK = 61.0


@pytest.fixture(params=["file", "nats"])
async def keeper(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Server]:
    """A server that keeps runs for a day."""
    async with AsyncExitStack() as stack:
        more = {}
        if request.param == "nats":
            location = fresh_location([request.getfixturevalue("nats")])
            await stack.enter_async_context(without_streams(location))
            more["store"] = str(location)
        yield await stack.enter_async_context(serving(tmp_path, clock=clock, retention=DAY, **more))


async def kept(stubs: Stubs) -> list[str]:
    request = ListRunsRequest(filter=RunFilter(include_system_runs=True))
    response = await stubs.runs.ListRuns(request, timeout=PATIENCE)
    return [run.run_id for run in response.runs]


async def test_ended_runs_go_in_time_and_others_stay(keeper: Server, clock: ManualClock) -> None:
    stubs = keeper.stubs
    await create(stubs, "open")
    await append(stubs, a_run_of(4, finished=False), run_id="open")
    for run_id in ("first", "second"):
        await create(stubs, run_id)
        await append(stubs, a_run_of(4), run_id=run_id)
    clock.advance(DAY / 2)
    await create(stubs, "later")
    await append(stubs, a_run_of(4), run_id="later")
    clock.advance(DAY / 2 - A_LOOK)
    assert await kept(stubs) == ["later", "second", "first", "open"]

    async def gone() -> bool:
        clock.advance(A_LOOK)  # again, where the look before was still under way
        return await kept(stubs) == ["later", "open"]

    clock.advance(A_LOOK)
    await until(gone)


async def test_results_of_rules_stay(keeper: Server, clock: ManualClock) -> None:
    stubs = keeper.stubs
    rule = await create_rule(stubs)
    rule.salt = "other"
    await update_rule(stubs, rule)
    await create(stubs, "gone")
    await append(stubs, a_run_of(4), run_id="gone")

    async def gone() -> bool:
        return await kept(stubs) == ["lavant.rule.2", "lavant.rule.1"]

    clock.advance(DAY + A_LOOK)
    await until(gone)


async def test_a_run_that_ended_late_is_kept_from_its_end_on(keeper: Server, clock: ManualClock) -> None:
    stubs = keeper.stubs
    for run_id in ("long", "short"):
        await create(stubs, run_id, producer_timeout=Duration(seconds=10 * 24 * 3600))
        await append(stubs, a_run_of(4, finished=False), run_id=run_id)
    await append(stubs, a_run_of(8)[4:], run_id="short", first=5)
    clock.advance(2 * DAY - A_LOOK)
    await append(stubs, a_run_of(8)[4:], run_id="long", first=5)

    async def gone() -> bool:
        clock.advance(A_LOOK)
        return await kept(stubs) == ["long"]

    await until(gone)
    for _ in range(20):
        clock.advance(A_LOOK)
        assert await kept(stubs) == ["long"]
