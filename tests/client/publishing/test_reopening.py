"""A consumer's lease is free for its next stream as soon as the last one is closed."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from lavant.client import AsyncClient, ConsumerBusy
from lavant.client._reading.plan import Sessions
from lavant.v1 import event_service_pb2 as pb
from support.scripted import Context, Script, events, opened, played
from support.server import Server

BREAKS_OFF = """
import asyncio, sys
from lavant.client import AsyncClient

kept = []

async def main():
    client = AsyncClient(sys.argv[1])
    async for _ in client.runs.stream(sys.argv[2]):
        break
    stream = client.runs.stream(sys.argv[2])
    await anext(stream)
    kept.append(stream)
    if sys.argv[3] == "closed":
        await client.aclose()
    else:
        kept.append(client)

asyncio.run(main())
"""


async def waits(request: pb.StreamEventsRequest, context: Context) -> AsyncIterator[pb.StreamEventsResponse]:
    yield opened()
    yield events(1, 2)
    await asyncio.Event().wait()


async def test_a_closed_stream_is_followed_at_once(client: AsyncClient) -> None:
    run = await client.runs.create("agent")
    async with client.runs.start("agent", run_id=run.id):
        for _ in range(200):
            async with client.runs.stream(run.id, consumer="ui") as stream:
                await anext(stream)


async def test_a_stream_that_was_left_is_followed_at_once(client: AsyncClient) -> None:
    run = await client.runs.create("agent")
    async with client.runs.start("agent", run_id=run.id):
        for _ in range(200):
            async for _event in client.runs.stream(run.id, consumer="ui"):
                break


@pytest.mark.parametrize("closed", [True, False])
async def test_the_next_stream_continues_the_session(closed: bool) -> None:
    script = Script([waits] * 3)
    async with played(script) as client:
        first = client.runs.stream("r", consumer="ui")
        await anext(first)
        rival = client.runs.stream("r", consumer="ui")
        await anext(rival)
        if closed:
            await rival.aclose()
        else:
            del rival
        await anext(client.runs.stream("r", consumer="ui"))
    one, two, three = script.requests
    assert one.session_id != two.session_id
    assert (three.session_id, three.attempt) == (two.session_id, two.attempt + 1)


async def test_an_open_stream_keeps_its_place(client: AsyncClient) -> None:
    run = await client.runs.create("agent")
    async with client.runs.start("agent", run_id=run.id):
        async with client.runs.stream(run.id, consumer="ui") as first:
            await anext(first)
            for _ in range(2):
                with pytest.raises(ConsumerBusy):
                    await anext(client.runs.stream(run.id, consumer="ui"))
        await anext(client.runs.stream(run.id, consumer="ui"))


@pytest.mark.parametrize("end", ["closed", "left"])
async def test_breaking_off_is_silent_at_the_end_of_the_process(client: AsyncClient, server: Server, end: str) -> None:
    async with client.runs.start("agent") as run:
        await run.flush()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-X", "dev", "-c", BREAKS_OFF, server.target, run.id, end),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (0, "")


def test_a_session_is_continued_once_it_is_closed() -> None:
    sessions = Sessions()
    first = sessions.begin("r", "ui")
    first.attempt = 3
    sessions.opened(first)
    rival = sessions.begin("r", "ui")
    rival.attempt = 1
    assert rival.id != first.id
    sessions.close(rival)
    sessions.close(first)
    second = sessions.begin("r", "ui")
    assert (second.id, second.attempt) == (first.id, 3)
    sessions.close(first)
    assert sessions.begin("r", "ui").id not in (first.id, rival.id)
    sessions.close(second)
    assert sessions.begin("r", "ui").id == first.id


def test_taking_over_begins_a_new_session() -> None:
    sessions = Sessions()
    first = sessions.begin("r", "ui")
    sessions.opened(first)
    sessions.close(first)
    assert sessions.begin("r", "ui", take_over=True).id != first.id


def test_a_session_is_of_one_run_and_consumer_and_forgotten_when_many_came_since() -> None:
    sessions = Sessions(limit=2)
    begun = {key: sessions.begin(*key) for key in (("r", "a"), ("r", "b"), ("s", "a"), ("r", ""))}
    for session in begun.values():
        sessions.opened(session)
        sessions.close(session)
    again = {key for key, session in begun.items() if sessions.begin(*key).id == session.id}
    assert again == {("r", "b"), ("s", "a")}
