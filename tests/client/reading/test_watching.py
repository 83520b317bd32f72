"""Watching runs takes the same filters as listing them."""

import asyncio
import inspect
from datetime import timedelta

import pytest

from lavant.client import AsyncClient, Client
from lavant.client._async.api.runs import AsyncRuns
from lavant.client._sync.api.runs import Runs
from support.calls import append
from support.clock import ManualClock
from support.events import a_run_of, run_started
from support.server import Server


@pytest.mark.parametrize("runs", [AsyncRuns, Runs])
def test_every_filter_of_the_list_is_one_of_the_watch(runs: type) -> None:
    listed, watched = (inspect.signature(getattr(runs, name)).parameters for name in ("list", "watch"))
    assert set(listed) - set(watched) == {"page_size"}
    assert all(watched[name] == listed[name] for name in set(listed) & set(watched))


async def test_only_runs_of_a_time(timed_server: Server, clock: ManualClock) -> None:
    async with AsyncClient(timed_server.target) as client:
        made = []
        for name in ("old", "right", "new"):
            made.append(await client.runs.create("agent", run_id=name))
            clock.advance(60)
        moment = timedelta(seconds=1)
        assert made[1].created is not None
        begin, end = made[1].created - moment, made[1].created + moment
        since = client.runs.watch(created_after=begin)
        assert [(await anext(since)).run_id for _ in range(3)] == ["right", "new", ""]
        await client.runs.create("agent", run_id="later")
        assert (await anext(since)).run_id == "later"
        between = client.runs.watch(created_after=begin, created_before=end)
        assert [(await anext(between)).run_id for _ in range(2)] == ["right", ""]
        await append(timed_server.stubs, [run_started()], run_id="right")
        assert (await anext(between)).run_id == "right"


async def test_the_blocking_client_does_too(server: Server, client: AsyncClient) -> None:
    old = await client.runs.create("agent", run_id="old")
    await client.runs.create("agent", run_id="new")
    with Client(server.target) as blocking:
        assert old.created is not None
        watch = blocking.runs.watch(created_after=old.created + timedelta(microseconds=1))
        assert (await asyncio.to_thread(next, watch)).run_id == "new"


async def test_watch_reports_runs_that_leave_and_are_deleted(server: Server, client: AsyncClient) -> None:
    await client.runs.create("agent", run_id="run")
    watch = client.runs.watch(states=["queued", "running"])
    changes = [await anext(watch) for _ in range(2)]
    await append(server.stubs, a_run_of(3))
    changes.append(await anext(watch))
    await client.runs.delete("run")
    changes.append(await anext(watch))
    assert [(change.type, change.run_id) for change in changes] == [
        ("run", "run"),
        ("caught_up", ""),
        ("left", "run"),
        ("deleted", "run"),
    ]
    assert [change.run and change.run.state for change in changes] == ["queued", None, None, None]


async def test_watch_continues_after_token_of_a_change(server: Server, client: AsyncClient) -> None:
    for name in ("one", "two"):
        await client.runs.create("agent", run_id=name)
    watch = client.runs.watch()
    changes = [await anext(watch) for _ in range(3)]
    await client.runs.create("agent", run_id="three")
    for change, expected in zip(changes, ("one", "three", "three"), strict=True):  # both came in one frame
        resumed = client.runs.watch(resume_token=change.resume_token)
        assert (await anext(resumed)).run_id == expected
