"""Where a reader is, and what it was given before, against a real server."""

import pytest

from lavant.client import AsyncClient, IdleTimeout

WORDS = [f"{number} " for number in range(1, 251)]


async def long_run(client: AsyncClient) -> str:
    """Record a run that is read in one frame, with more events in it than are made ready at once."""
    async with client.runs.start("counter") as run:
        for word in WORDS:
            await run.text(word)
    return run.id


async def test_a_stream_resumes_behind_any_event_of_a_frame(client: AsyncClient) -> None:
    run_id = await long_run(client)
    whole = [event.sequence async for event in client.runs.stream(run_id)]
    assert len(whole) > len(WORDS)
    for returned in (1, 2, 99, 100, 101, 199, 200, 201, len(whole) - 1, len(whole)):
        stream = client.runs.stream(run_id)
        assert [(await anext(stream)).sequence for _ in range(returned)] == whole[:returned]
        token = stream.resume_token
        await stream.aclose()
        assert [event.sequence async for event in client.runs.stream(run_id, resume_token=token)] == whole[returned:]


async def test_text_is_read_again_from_where_the_stream_began(client: AsyncClient) -> None:
    async with client.runs.start("speaker") as run:
        for text in ("One. ", "Two. ", "Three."):
            async with run.message() as message:
                await message.text(text)
    first = client.runs.stream(run.id)
    assert [(await anext(first)).type for _ in range(4)][-1] == "message_finished"
    second = client.runs.stream(run.id, consumer="ui", resume_token=first.resume_token)
    assert [(await anext(second)).type for _ in range(2)] == ["message_started", "text_delta"]
    assert await second.text() == "Two. Three."
    assert await first.text() == "One. Two. Three."


async def test_text_of_a_stream_from_now_on_leaves_out_what_was_said_before(client: AsyncClient) -> None:
    async with client.runs.start("speaker") as run:
        async with run.message() as message:
            await message.text("before")
        await run.flush()
        stream = client.runs.stream(run.id, start="now", idle_timeout=0.2)
        with pytest.raises(IdleTimeout):
            await anext(stream)
        async with run.message() as message:
            await message.text("after")
    assert (await anext(stream)).type == "message_started"
    assert await stream.text() == "after"


async def test_text_keeps_to_the_filter_of_its_stream(client: AsyncClient) -> None:
    run_id = await long_run(client)
    stream = client.runs.stream(run_id, types=["run_started", "run_finished"], deltas="none")
    assert [event.type async for event in stream] == ["run_started", "run_finished"]
    assert await stream.text() == ""
