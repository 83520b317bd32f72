"""ListRuns: order, pages, filters and page tokens."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1.run_pb2 import RunKind, RunState
from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter, WatchRunsRequest
from support.calls import PATIENCE, append, create, ended_run
from support.clock import ManualClock
from support.events import run_finished, run_started
from support.server import Server, Stubs, serving
from support.status import refused


async def ids(stubs: Stubs, page_size: int | None = None, **filters: Any) -> list[str]:
    """The ids of all runs that match, page by page."""
    found: list[str] = []
    token = ""
    while True:
        run_filter = RunFilter(**filters)
        page = await stubs.runs.ListRuns(ListRunsRequest(filter=run_filter, page_size=page_size, page_token=token))
        assert len(page.runs) <= (page_size or 100)
        found += [run.run_id for run in page.runs]
        token = page.next_page_token
        if not token:
            return found


async def test_runs_are_listed_newest_first_in_pages(server: Server) -> None:
    for number in range(7):
        await create(server.stubs, f"run-{number}")
    await append(server.stubs, [run_started()], run_id="run-2")  # what happens to a run does not move it

    newest_first = [f"run-{number}" for number in reversed(range(7))]
    for page_size in (None, 1, 2, 7, 1_000):
        assert await ids(server.stubs, page_size) == newest_first


async def test_a_page_is_100_runs_unless_said_otherwise(server: Server) -> None:
    for number in range(101):
        await create(server.stubs, f"run-{number}")
    page = await server.stubs.runs.ListRuns(ListRunsRequest())
    assert len(page.runs) == 100
    assert page.next_page_token


async def test_runs_created_between_two_pages_do_not_shift_them(server: Server) -> None:
    for number in range(4):
        await create(server.stubs, f"run-{number}")
    page = await server.stubs.runs.ListRuns(ListRunsRequest(page_size=2))
    await create(server.stubs, "late")
    rest = await server.stubs.runs.ListRuns(ListRunsRequest(page_size=2, page_token=page.next_page_token))
    assert [run.run_id for run in (*page.runs, *rest.runs)] == ["run-3", "run-2", "run-1", "run-0"]
    assert not rest.next_page_token


async def test_runs_with_large_results_come_in_pages_that_clients_take(server: Server) -> None:
    finished = run_finished()
    finished.run_finished.output_json = f'"{"x" * 900_000}"'
    oldest_first = [f"run-{number}" for number in range(6)]
    for run_id in oldest_first:
        await create(server.stubs, run_id)
        await append(server.stubs, [run_started(), finished], run_id=run_id)

    assert await ids(server.stubs) == oldest_first[::-1]
    watch = server.stubs.runs.WatchRuns(WatchRunsRequest(), timeout=PATIENCE)
    seen: list[str] = []
    while len(seen) < 6:
        frame: Any = await watch.read()
        seen += [run.run_id for run in frame.runs]
    watch.cancel()
    assert seen == oldest_first


async def populate(stubs: Stubs, clock: ManualClock) -> None:
    """Four runs that differ in everything that filters compare."""
    labels = {"team": "search", "stage": "prod"}
    await create(stubs, "queued", name="weather-v1", labels=labels, conversation_id="c1", parent_run_id="root")
    clock.advance(10)
    await create(stubs, "running", name="weather-v2", labels={"team": "search"}, conversation_id="c1")
    await append(stubs, [run_started()], run_id="running")
    clock.advance(10)
    await ended_run(stubs, "ended", name="news", labels={"team": "ads"}, kind=RunKind.RUN_KIND_EVALUATION)
    clock.advance(10)
    await create(stubs, "literal", name="weather-*")


SECOND = Timestamp(seconds=1_700_000_010)
THIRD = Timestamp(seconds=1_700_000_020)
FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["literal", "ended", "running", "queued"]),
    ({"kinds": [RunKind.RUN_KIND_EVALUATION]}, ["ended"]),
    ({"kinds": [RunKind.RUN_KIND_EVALUATION, RunKind.RUN_KIND_AGENT]}, ["literal", "ended", "running", "queued"]),
    ({"states": [RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_SUCCEEDED]}, ["ended", "running"]),
    ({"states": [RunState.RUN_STATE_FAILED]}, []),
    ({"names": ["news"]}, ["ended"]),
    ({"names": ["weather-v*"]}, ["running", "queued"]),
    ({"names": ["weather-*", "new"]}, ["literal", "running", "queued"]),
    ({"names": ["*"]}, ["literal", "ended", "running", "queued"]),
    ({"names": ["*-v1"]}, []),
    ({"names": ["weather"]}, []),
    ({"labels": {"team": "search"}}, ["running", "queued"]),
    ({"labels": {"team": "search", "stage": "prod"}}, ["queued"]),
    ({"labels": {"team": "*"}}, []),
    ({"conversation_id": "c1"}, ["running", "queued"]),
    ({"parent_run_id": "root"}, ["queued"]),
    ({"created_after": SECOND}, ["literal", "ended", "running"]),
    ({"created_before": SECOND}, ["queued"]),
    ({"created_after": SECOND, "created_before": THIRD}, ["running"]),
    ({"conversation_id": "c1", "states": [RunState.RUN_STATE_QUEUED], "names": ["weather*"]}, ["queued"]),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=str)
async def test_everything_set_in_a_filter_must_hold(
    timed_server: Server, clock: ManualClock, filters: dict[str, Any], expected: list[str]
) -> None:
    await populate(timed_server.stubs, clock)
    assert await ids(timed_server.stubs, **filters) == expected
    assert await ids(timed_server.stubs, page_size=1, **filters) == expected


async def test_only_this_lists_own_tokens_are_taken(server: Server, tmp_path: Path) -> None:
    for number in range(3):
        await create(server.stubs, f"run-{number}", producer_timeout=Duration(seconds=9))
    page = await server.stubs.runs.ListRuns(ListRunsRequest(page_size=1))
    token = page.next_page_token
    watch = server.stubs.runs.WatchRuns(WatchRunsRequest())
    frame: Any = await watch.read()
    watch.cancel()
    async with serving(tmp_path / "other") as other:
        for number in range(2):
            await create(other.stubs, f"run-{number}")
        foreign = (await other.stubs.runs.ListRuns(ListRunsRequest(page_size=1))).next_page_token

    changed = token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]
    for bad in (changed, token[:-1], token + "A", "x", "ünï", "A" * 600, frame.resume_token, foreign):
        with refused("INVALID_FIELD", "page_token"):
            await server.stubs.runs.ListRuns(ListRunsRequest(page_token=bad))
    with refused("INVALID_FIELD", "resume_token"):
        await server.stubs.runs.WatchRuns(WatchRunsRequest(resume_token=token)).read()
