"""Streams of evaluations resume from their tokens, after any event."""

import asyncio

import pytest

from lavant.client import AsyncClient, Client, EvaluationEvent, IdleTimeout, RunState, StatusEvent
from support.evaluated import cities, shout
from support.server import ServerProcess

STATUS = "status"


@pytest.fixture
async def evaluation_id(client: AsyncClient) -> str:
    """An evaluation of four rows that is done."""
    return (await client.evaluations.run(cities("a", "b"), shout, iterations=2, max_concurrency=1)).id


async def read(client: AsyncClient, evaluation_id: str, token: str | None = None) -> list[EvaluationEvent]:
    return [event async for event in client.evaluations.stream(evaluation_id, resume_token=token)]


async def test_a_stream_goes_on_behind_any_event(client: AsyncClient, evaluation_id: str) -> None:
    told = await read(client, evaluation_id)
    assert [event.type for event in told] == [
        STATUS, "progress", *["row_complete", "progress"] * 4, STATUS, "final",
    ]  # fmt: skip
    for count in range(1, len(told)):
        async with client.evaluations.stream(evaluation_id, consumer="ui") as stream:
            for _ in range(count):
                await anext(stream)
        rest = await read(client, evaluation_id, stream.resume_token)
        # A status that comes with another event is repeated until that event was returned too.
        behind = count - 1 if told[count - 1].type == STATUS else count
        assert [event.type for event in rest] == [event.type for event in told[behind:]]
        rows = [event.row for event in rest if event.type == "row_complete"]
        assert rows == [event.row for event in told[behind:] if event.type == "row_complete"]
        final = rest[-1]
        assert final.type == "final"
        assert (final.result.accuracy, final.result.rows_succeeded) == (1.0, 4)


async def test_a_finished_stream_yields_no_more(client: AsyncClient, evaluation_id: str) -> None:
    stream = client.evaluations.stream(evaluation_id)
    assert stream.resume_token == ""
    assert [event async for event in stream][-1].type == "final"
    assert await read(client, evaluation_id, stream.resume_token) == []


async def test_a_stream_has_the_limits_and_the_place_of_a_runs(client: AsyncClient) -> None:
    await client.runs.create("cities", run_id="e", kind="evaluation")
    stream = client.evaluations.stream("e", idle_timeout=0.05)
    first = await anext(stream)
    assert isinstance(first, StatusEvent)
    assert (first.status, first.state) == ("queued", RunState.QUEUED)
    with pytest.raises(IdleTimeout):
        await anext(stream)
    with pytest.raises(ValueError, match="start"):
        client.evaluations.stream("e", start="end")  # type: ignore[arg-type]


async def test_the_state_comes_first_at_every_opening(client: AsyncClient) -> None:
    async with client.runs.start("cities", kind="evaluation", on_error="raise") as run:
        await run.flush()
        first = client.evaluations.stream(run.id)
        events = [await anext(first) for _ in range(3)]
        assert [event.type for event in events] == ["status", "status", "progress"]
        later = client.evaluations.stream(run.id, resume_token=first.resume_token)
        again = await anext(later)
        assert isinstance(again, StatusEvent)
        assert again.status == "running"
        await first.aclose()
        await later.aclose()


async def test_a_token_before_the_state_is_one_to_go_on_with(client: AsyncClient) -> None:
    async with client.runs.start("cities", kind="evaluation", on_error="raise") as run:
        await run.flush()
        first = client.evaluations.stream(run.id)
        await first._stream.open()
        for token in (first.resume_token, first._stream.last_event_id):
            later = client.evaluations.stream(run.id, resume_token=token)
            assert [(await anext(later)).type for _ in range(3)] == ["status", "status", "progress"]
            await later.aclose()
        while (await anext(first)).type != "progress":
            pass
        again = client.evaluations.stream(run.id, resume_token=first.resume_token)
        await again._stream.open()
        assert again.resume_token.partition("~")[2] in ("", "1")
        await run.progress("rows", 1, 2)
        assert [(await anext(again)).type for _ in range(2)] == ["status", "progress"]
        await first.aclose()
        await again.aclose()


async def test_a_token_outlives_the_server_and_the_client(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    done = await process_client.evaluations.run(cities("a", "b"), shout, max_concurrency=1)
    stream = process_client.evaluations.stream(done.id)
    async for event in stream:
        if event.type == "row_complete":
            break
    await server_process.kill()
    await server_process.start()

    def rest() -> list[str]:
        with Client(server_process.target) as client:
            events = client.evaluations.stream(done.id, resume_token=stream.resume_token)
            return [event.row.id for event in events if event.type == "row_complete"]

    assert await asyncio.to_thread(rest) == ["b"]
