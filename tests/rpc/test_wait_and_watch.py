"""WaitRun and WatchRuns: answers that come when something happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from lavant.v1.run_pb2 import Run, RunState
from lavant.v1.run_service_pb2 import (
    DeleteRunRequest,
    RunFilter,
    WaitRunRequest,
    WatchRunsRequest,
    WatchRunsResponse,
)
from support.calls import PATIENCE, append, create, ended_run, until
from support.clock import ManualClock
from support.events import a_run_of, run_finished, run_started, text_delta
from support.server import Server, Stubs
from support.status import refused

if TYPE_CHECKING:
    from grpc.aio import UnaryStreamCall


async def wait(stubs: Stubs, timeout: Duration | None = None, deadline: float = PATIENCE) -> Run:
    """Wait for the run named "run"."""
    request = WaitRunRequest(run_id="run", timeout=timeout)
    return (await stubs.runs.WaitRun(request, timeout=deadline)).run


async def test_waiting_for_an_ended_run_ends_at_once(server: Server) -> None:
    await ended_run(server.stubs)
    assert (await wait(server.stubs)).state == RunState.RUN_STATE_SUCCEEDED


async def test_waiting_ends_with_the_run(timed_server: Server) -> None:
    await create(timed_server.stubs)
    waiting = asyncio.create_task(wait(timed_server.stubs))
    await until(lambda: len(timed_server.app.calls) == 1)
    await append(timed_server.stubs, [run_started()])
    await append(timed_server.stubs, [run_finished(RunState.RUN_STATE_CANCELLED)], first=2)

    run = await waiting

    assert run.state == RunState.RUN_STATE_CANCELLED
    assert run.last_sequence == 2


@pytest.mark.parametrize(
    ("asked", "deadline", "expected"),
    [(None, 90, 30), (60, 90, 60), (7, 90, 7), (60, 10, 9.5), (60, 0.9, 0.45)],
    ids=["default", "longest", "as asked", "before the deadline", "half-way to a close deadline"],
)
async def test_waiting_ends_after_the_timeout_and_before_the_deadline(
    timed_server: Server, clock: ManualClock, asked: int | None, deadline: float, expected: float
) -> None:
    await create(timed_server.stubs)
    timeout = None if asked is None else Duration(seconds=asked)
    waiting = asyncio.create_task(wait(timed_server.stubs, timeout, deadline))

    # On its way to the server a deadline shrinks by what that takes, and is rounded.
    within = 0.3 if deadline < (asked or 30) else 1e-3
    await until(lambda: clock.due(expected, within=within))
    clock.advance(expected + within)

    assert (await waiting).state == RunState.RUN_STATE_QUEUED


async def test_not_waiting_at_all_tells_how_the_run_stands(server: Server) -> None:
    await create(server.stubs)
    assert (await wait(server.stubs, Duration())).state == RunState.RUN_STATE_QUEUED


async def test_waiting_ends_early_when_the_server_drains(timed_server: Server) -> None:
    await create(timed_server.stubs)
    waiting = asyncio.create_task(wait(timed_server.stubs))
    await until(lambda: len(timed_server.app.calls) == 1)
    timed_server.app.calls.drain()

    assert (await waiting).state == RunState.RUN_STATE_QUEUED
    with refused("UNAVAILABLE") as refusal:
        await wait(timed_server.stubs)
    assert refusal.detail(RetryInfo).retry_delay.ToNanoseconds() > 0


async def test_waiting_for_a_run_that_never_was(server: Server) -> None:
    with refused("RUN_NOT_FOUND"):
        await wait(server.stubs)


@asynccontextmanager
async def watching(
    stubs: Stubs, token: str = "", **filters: object
) -> "AsyncIterator[UnaryStreamCall[WatchRunsRequest, WatchRunsResponse]]":
    """Watch runs until the block's end."""
    run_filter = RunFilter(**filters)  # type: ignore[arg-type]
    call = stubs.runs.WatchRuns(WatchRunsRequest(filter=run_filter, resume_token=token), timeout=PATIENCE)
    try:
        yield call
    finally:
        call.cancel()


async def frame(call: "UnaryStreamCall[WatchRunsRequest, WatchRunsResponse]") -> WatchRunsResponse:
    """The next frame."""
    response = await call.read()
    assert isinstance(response, WatchRunsResponse)
    assert response.resume_token
    return response


def states(response: WatchRunsResponse) -> list[tuple[str, str]]:
    """The runs of a frame."""
    return [(run.run_id, RunState.Name(run.state).removeprefix("RUN_STATE_")) for run in response.runs]


async def test_a_watch_begins_with_the_runs_as_they_stand_and_tells_each_change(server: Server) -> None:
    await create(server.stubs, "old")
    await ended_run(server.stubs, "ended")
    async with watching(server.stubs) as watch:
        assert states(await frame(watch)) == [("old", "QUEUED"), ("ended", "SUCCEEDED")]

        await create(server.stubs, "new")
        assert states(await frame(watch)) == [("new", "QUEUED")]
        await append(server.stubs, a_run_of(3, finished=False), run_id="new")
        assert states(await frame(watch)) == [("new", "RUNNING")]
        await append(server.stubs, [text_delta()], run_id="new", first=4)  # no change of state, and no news
        await append(server.stubs, [run_finished(RunState.RUN_STATE_FAILED)], run_id="new", first=5)
        failed = await frame(watch)
    assert states(failed) == [("new", "FAILED")]
    assert failed.runs[0].result.error.message == "it broke"


async def test_a_watch_without_any_run_begins_with_a_token(server: Server) -> None:
    async with watching(server.stubs) as watch:
        first = await frame(watch)
    assert not first.runs
    await create(server.stubs)
    async with watching(server.stubs, first.resume_token) as watch:
        assert states(await frame(watch)) == [("run", "QUEUED")]


async def test_a_token_continues_behind_its_frame(server: Server) -> None:
    for number in range(250):
        await create(server.stubs, f"run-{number}")
    seen: list[tuple[str, str]] = []
    token = ""
    while len(seen) < 250:
        async with watching(server.stubs, token) as watch:
            response = await frame(watch)
        seen += states(response)
        token = response.resume_token
    await append(server.stubs, a_run_of(4), run_id="run-7")
    async with watching(server.stubs, token) as watch:
        seen += states(await frame(watch))

    assert seen == [*((f"run-{number}", "QUEUED") for number in range(250)), ("run-7", "SUCCEEDED")]


async def test_a_filtered_watch_tells_only_of_matching_runs(server: Server) -> None:
    async with watching(server.stubs, names=["wanted"], states=[RunState.RUN_STATE_QUEUED]) as watch:
        assert not states(await frame(watch))
        await create(server.stubs, "a")
        await ended_run(server.stubs, "b", name="wanted")
        await create(server.stubs, "c", name="wanted")
        seen = states(await frame(watch))
        if seen == [("b", "QUEUED")]:  # it was told of before it had started
            seen = states(await frame(watch))
    assert seen == [("c", "QUEUED")]


async def test_a_quiet_watch_gives_signs_of_life(timed_server: Server, clock: ManualClock) -> None:
    await ended_run(timed_server.stubs)
    async with watching(timed_server.stubs) as watch:
        first = await frame(watch)
        for _ in range(3):
            await until(lambda: clock.due(15))
            clock.advance(15)
            sign = await frame(watch)
            assert not sign.runs
            assert sign.resume_token == first.resume_token


async def test_a_deleted_run_is_no_news(server: Server) -> None:
    await ended_run(server.stubs)
    async with watching(server.stubs) as watch:
        await frame(watch)
        await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))
        await create(server.stubs, "next")
        assert states(await frame(watch)) == [("next", "QUEUED")]


async def test_a_watch_is_ended_by_a_draining_server(server: Server) -> None:
    async with watching(server.stubs) as watch:
        await frame(watch)
        server.app.calls.drain()
        with refused("UNAVAILABLE") as refusal:
            await watch.read()
    assert refusal.detail(RetryInfo).retry_delay.ToNanoseconds() > 0
