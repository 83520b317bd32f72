"""System runs in lists and watches: left out unless the caller wants them."""

from typing import Any

import pytest

from lavant.v1.run_pb2 import RunKind
from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter, WatchRunsRequest
from support.calls import PATIENCE, create
from support.rules import create_rule, update_rule
from support.server import Server, Stubs

RESULTS = ["lavant.rule.1", "lavant.rule.2"]


@pytest.fixture
async def stubs(server: Server) -> Stubs:
    """A caller whose tenant has two runs and, in between, two of the results of a rule."""
    await create(server.stubs, "first")
    rule = await create_rule(server.stubs, "rule")
    rule.salt = "other"
    await update_rule(server.stubs, rule)
    await create(server.stubs, "second")
    return server.stubs


async def listed(stubs: Stubs, **wanted: Any) -> list[str]:
    """The IDs of runs that match, the newest first, read in pages of one."""
    found: list[str] = []
    token = ""
    while True:
        request = ListRunsRequest(filter=RunFilter(**wanted), page_size=1, page_token=token)
        page = await stubs.runs.ListRuns(request)
        assert len(page.runs) == 1
        found += [run.run_id for run in page.runs]
        if not (token := page.next_page_token):
            return found


async def watched(stubs: Stubs, **wanted: Any) -> list[str]:
    """The IDs of runs that a watch reports before it has caught up."""
    found: list[str] = []
    call = stubs.runs.WatchRuns(WatchRunsRequest(filter=RunFilter(**wanted)), timeout=PATIENCE)
    async for frame in call:
        found += [*(run.run_id for run in frame.runs), *frame.left_run_ids, *frame.deleted_run_ids]
        if frame.caught_up:
            break
    call.cancel()
    return found


async def test_lists_and_watches_leave_system_runs_out(stubs: Stubs) -> None:
    assert await listed(stubs) == ["second", "first"]
    assert await watched(stubs) == ["first", "second"]


async def test_lists_and_watches_have_system_runs_on_demand(stubs: Stubs) -> None:
    assert await listed(stubs, include_system_runs=True) == ["second", *RESULTS[::-1], "first"]
    assert sorted(await watched(stubs, include_system_runs=True)) == ["first", *RESULTS, "second"]
    evaluations: dict[str, Any] = {"kinds": [RunKind.RUN_KIND_EVALUATION], "include_system_runs": True}
    assert await listed(stubs, **evaluations) == RESULTS[::-1]


async def test_watch_stays_silent_about_system_runs(stubs: Stubs) -> None:
    call: Any = stubs.runs.WatchRuns(WatchRunsRequest(), timeout=PATIENCE)
    while not (frame := await call.read()).caught_up:
        pass
    await create_rule(stubs, "another")
    await create(stubs, "third")
    frame = await call.read()
    assert [run.run_id for run in frame.runs] == ["third"]
    call.cancel()
