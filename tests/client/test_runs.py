"""Runs, against a real server."""

import asyncio

import pytest

from lavant.client import (
    AsyncClient,
    InvalidField,
    Run,
    RunExists,
    RunFailed,
    RunNotEnded,
    RunNotFound,
    RunState,
    StreamCut,
    Unavailable,
    WaitTimeout,
)


async def ended(client: AsyncClient, name: str = "agent", **settings: str) -> Run:
    async with client.runs.start(name, **settings) as run:  # type: ignore[arg-type]
        run.output = {"n": 1}
    return await client.runs.get(run.id)


async def test_a_run_is_created_once(client: AsyncClient) -> None:
    run = await client.runs.create("agent", run_id="r", labels={"a": "b"})
    assert run == await client.runs.create("agent", run_id="r", labels={"a": "b"})
    assert (run.id, run.state) == ("r", RunState.QUEUED)
    with pytest.raises(RunExists):
        await client.runs.create("other", run_id="r")


async def test_refusals_say_why(client: AsyncClient) -> None:
    with pytest.raises(RunNotFound):
        await client.runs.get("nowhere")
    with pytest.raises(InvalidField) as refused:
        await client.runs.get("no id")
    assert [violation.path for violation in refused.value.violations] == ["run_id"]


async def test_lists_are_filtered_and_paged(client: AsyncClient) -> None:
    for number in range(5):
        await client.runs.create("agent", run_id=f"r{number}", labels={"even": str(number % 2 == 0)})
    found = [run.id async for run in client.runs.list(labels={"even": "True"}, page_size=1)]
    assert found == ["r4", "r2", "r0"]
    assert [run.id async for run in client.runs.list(states=[RunState.SUCCEEDED])] == []


async def test_events_come_in_pages(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        for number in range(25):
            await run.custom("a.b", number)
    events = [event async for event in client.runs.events(run.id, page_size=4)]
    assert [event.sequence for event in events] == [*range(1, 28)]
    filtered = [event.sequence async for event in client.runs.events(run.id, types=["run_finished"], page_size=1)]
    assert filtered == [27]


async def test_waiting_for_the_end(client: AsyncClient) -> None:
    run = await client.runs.create("agent")
    with pytest.raises(WaitTimeout):
        await client.runs.wait(run.id, timeout=0.05)
    waiting = asyncio.create_task(client.runs.wait(run.id, timeout=20))
    async with client.runs.start("agent", run_id=run.id):
        pass
    assert (await waiting).state is RunState.SUCCEEDED


async def test_watching_runs_change(client: AsyncClient) -> None:
    await ended(client, "first")
    watch = client.runs.watch(names=["f*", "second"])
    changes = [await anext(watch) for _ in range(2)]
    await client.runs.create("other")
    await client.runs.create("second")
    changes.append(await anext(watch))
    assert [change.run and change.run.name for change in changes] == ["first", None, "second"]


async def test_only_ended_runs_are_deleted(client: AsyncClient) -> None:
    run = await client.runs.create("agent")
    with pytest.raises(RunNotEnded):
        await client.runs.delete(run.id)
    gone = await ended(client)
    await client.runs.delete(gone.id)
    with pytest.raises(RunNotFound):
        await client.runs.get(gone.id)


async def test_a_failed_run_is_no_success(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="boom"):
        async with client.runs.start("agent") as run:
            raise ValueError("boom")
    with pytest.raises(RunFailed) as failed:
        await client.runs.stream(run.id).result()
    assert failed.value.result.error is not None
    assert (failed.value.result.error.type, failed.value.result.error.message) == ("ValueError", "boom")


async def test_without_a_server_calls_fail_clearly() -> None:
    async with AsyncClient("127.0.0.1:1", timeout=0.3) as client:
        with pytest.raises(Unavailable):
            await client.runs.get("r")
        with pytest.raises(Unavailable):
            await client.runs.stream("r", reconnect_timeout=0.2).result()


async def test_a_closed_client_ends_its_streams(client: AsyncClient) -> None:
    await client.runs.create("agent", run_id="r")
    reading = asyncio.create_task(client.runs.stream("r").result())
    with pytest.raises(WaitTimeout):
        await client.runs.wait("r", timeout=0.05)
    await client.aclose()
    with pytest.raises(StreamCut):
        await reading
