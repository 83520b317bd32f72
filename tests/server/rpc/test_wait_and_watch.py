"""WaitRun and WatchRuns: answers that come when something happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from grpc.aio import EOF

from lavant.server.rpc import watch_runs
from lavant.v1.event_service_pb2 import StreamEndReason
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
    [(None, 90, 30), (59, 90, 59), (7, 90, 7), (60, 10, 9.5), (60, 0.9, 0.45)],
    ids=["default", "long", "as asked", "before the deadline", "half-way to a close deadline"],
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


async def test_not_waiting_at_all_returns_the_run(server: Server) -> None:
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
    stubs: Stubs, token: str = "", deadline: float = PATIENCE, **filters: Any
) -> "AsyncIterator[UnaryStreamCall[WatchRunsRequest, WatchRunsResponse]]":
    """Watch runs until the block's end."""
    run_filter = RunFilter(**filters)
    call = stubs.runs.WatchRuns(WatchRunsRequest(filter=run_filter, resume_token=token), timeout=deadline)
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


async def next_change(call: "UnaryStreamCall[WatchRunsRequest, WatchRunsResponse]") -> WatchRunsResponse:
    """The next frame that is not the one that says `caught_up`."""
    while (response := await frame(call)).caught_up:
        pass
    return response


def states(response: WatchRunsResponse) -> list[tuple[str, str]]:
    """The runs of a frame."""
    return [(run.run_id, RunState.Name(run.state).removeprefix("RUN_STATE_")) for run in response.runs]


async def test_watch_starts_with_snapshot_and_reports_each_change(server: Server) -> None:
    await create(server.stubs, "old")
    await ended_run(server.stubs, "ended")
    async with watching(server.stubs) as watch:
        assert states(await frame(watch)) == [("old", "QUEUED"), ("ended", "SUCCEEDED")]
        assert (await frame(watch)).caught_up

        await create(server.stubs, "new")
        assert states(await frame(watch)) == [("new", "QUEUED")]
        await append(server.stubs, a_run_of(3, finished=False), run_id="new")
        assert states(await frame(watch)) == [("new", "RUNNING")]
        await append(server.stubs, [text_delta()], run_id="new", first=4)  # no change of state, and no news
        await append(server.stubs, [run_finished(RunState.RUN_STATE_FAILED)], run_id="new", first=5)
        failed = await frame(watch)
    assert states(failed) == [("new", "FAILED")]
    assert failed.runs[0].result.error.message == "it broke"


async def test_watch_without_any_run_starts_with_caught_up(server: Server) -> None:
    async with watching(server.stubs) as watch:
        first = await frame(watch)
    assert (first.caught_up, len(first.runs)) == (True, 0)
    await create(server.stubs)
    async with watching(server.stubs, first.resume_token) as watch:
        assert states(await frame(watch)) == [("run", "QUEUED")]
        assert (await frame(watch)).caught_up


async def test_resume_token_continues_after_its_frame(server: Server) -> None:
    for number in range(250):
        await create(server.stubs, f"run-{number}")
    seen: list[tuple[str, str]] = []
    token = ""
    while len(seen) < 250:
        async with watching(server.stubs, token) as watch:
            response = await next_change(watch)
        seen += states(response)
        token = response.resume_token
    await append(server.stubs, a_run_of(4), run_id="run-7")
    async with watching(server.stubs, token) as watch:
        seen += states(await next_change(watch))

    assert seen == [*((f"run-{number}", "QUEUED") for number in range(250)), ("run-7", "SUCCEEDED")]


async def test_filtered_watch_reports_runs_that_match_and_that_leave(server: Server) -> None:
    await create(server.stubs, "a", name="wanted")
    await ended_run(server.stubs, "ended", name="wanted")
    async with watching(server.stubs, names=["wanted"], states=[RunState.RUN_STATE_QUEUED]) as watch:
        assert states(await frame(watch)) == [("a", "QUEUED")]
        assert (await frame(watch)).caught_up
        await create(server.stubs, "other")
        await append(server.stubs, [run_started()], run_id="a")
        left = await frame(watch)
        assert (states(left), list(left.left_run_ids)) == ([], ["a"])
        await create(server.stubs, "b", name="wanted")
        assert states(await frame(watch)) == [("b", "QUEUED")]


async def test_watch_of_ended_runs_reports_no_run_as_left(server: Server) -> None:
    async with watching(server.stubs, states=[RunState.RUN_STATE_SUCCEEDED]) as watch:
        assert (await frame(watch)).caught_up
        await create(server.stubs, "open")
        await ended_run(server.stubs, "ended")
        response = await frame(watch)
    assert (states(response), len(response.left_run_ids)) == ([("ended", "SUCCEEDED")], 0)


async def test_resumed_watch_reports_what_left_and_was_deleted_meanwhile(server: Server) -> None:
    for run_id in ("leaves", "goes", "stays"):
        await create(server.stubs, run_id)
    wanted: dict[str, Any] = {"states": [RunState.RUN_STATE_QUEUED, RunState.RUN_STATE_RUNNING]}
    async with watching(server.stubs, **wanted) as watch:
        token = (await frame(watch)).resume_token
    for run_id in ("leaves", "goes"):
        await append(server.stubs, a_run_of(3), run_id=run_id)
    await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="goes"))
    await create(server.stubs, "goes")
    async with watching(server.stubs, token, **wanted) as watch:
        response = await frame(watch)
        assert (await frame(watch)).caught_up
    assert list(response.left_run_ids) == ["leaves"]
    assert list(response.deleted_run_ids) == ["goes"]
    assert states(response) == [("goes", "QUEUED")]


async def test_many_deletions_come_in_several_frames(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_runs, "_MAX_DELETED", 2)
    names = [f"run-{number}" for number in range(5)]
    for name in names:
        await ended_run(server.stubs, name)
    async with watching(server.stubs) as watch:
        token = (await frame(watch)).resume_token
    for name in names:
        await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id=name))
    async with watching(server.stubs, token) as watch:
        frames = [await frame(watch) for _ in range(3)]
    assert [list(response.deleted_run_ids) for response in frames] == [names[:2], names[2:4], names[4:]]
    async with watching(server.stubs, frames[1].resume_token) as watch:  # what was sent in part is sent again
        assert list((await frame(watch)).deleted_run_ids) == names[:2]


async def test_quiet_watch_sends_heartbeats(timed_server: Server, clock: ManualClock) -> None:
    await ended_run(timed_server.stubs)
    async with watching(timed_server.stubs, deadline=100) as watch:
        for _ in range(2):
            await frame(watch)
        for _ in range(3):
            await until(lambda: clock.due(15))
            clock.advance(15)
            heartbeat = await frame(watch)
            heartbeat.ClearField("resume_token")
            assert heartbeat == WatchRunsResponse()


async def test_token_of_yesterday_is_refused(timed_server: Server, clock: ManualClock) -> None:
    async with watching(timed_server.stubs) as watch:
        token = (await frame(watch)).resume_token
    clock.advance(24 * 3600)
    async with watching(timed_server.stubs, token) as watch:
        assert (await frame(watch)).caught_up
    clock.advance(1)
    async with watching(timed_server.stubs, token) as watch:
        with refused("INVALID_FIELD") as refusal:
            await watch.read()
    assert "older than 24 hours" in refusal.status.message


async def test_watch_ends_as_planned_when_the_server_drains(server: Server) -> None:
    async with watching(server.stubs) as watch:
        await frame(watch)
        server.app.calls.drain()
        end = (await frame(watch)).end
        assert await watch.read() is EOF
    assert (end.reason, end.reconnect) == (StreamEndReason.STREAM_END_REASON_DRAINING, True)
    assert end.HasField("retry_delay")


@pytest.mark.parametrize(
    ("deadline", "due", "reason"),
    [(40.0, 39.1, "DEADLINE"), (10_000.0, 1_980.0, "MAX_AGE")],
)
async def test_watch_ends_before_its_deadline_and_at_its_age(
    timed_server: Server, clock: ManualClock, deadline: float, due: float, reason: str
) -> None:
    call = timed_server.stubs.runs.WatchRuns(WatchRunsRequest(), timeout=deadline)
    assert (await frame(call)).caught_up
    await until(lambda: clock.due(15))
    clock.advance(due + 0.4)
    while not (last := await frame(call)).HasField("end"):
        pass
    assert StreamEndReason.Name(last.end.reason) == f"STREAM_END_REASON_{reason}"
    assert await call.read() is EOF
