"""Two servers that share a store on NATS: to their clients they are one service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lavant.server.store.jetstream import Location
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import (
    CancelRunRequest,
    ListRunsRequest,
    WaitRunRequest,
    WatchRunsRequest,
    WatchRunsResponse,
)
from support.calls import PATIENCE, answer, get, publish, publishing, until
from support.events import a_run_of, custom, message_finished, run_finished, run_started, text_delta
from support.server import Server, Stubs, connected, serving
from support.streams import append, create, delete, failure, opened, read, read_to_end, read_until, refused, stream

if TYPE_CHECKING:
    from grpc.aio import UnaryStreamCall


@pytest.fixture
async def servers(location: Location, tmp_path: Path) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(tmp_path, store=str(location))) for _ in range(2)]


@pytest.fixture
def pair(servers: list[Server]) -> tuple[Stubs, Stubs]:
    return servers[0].stubs, servers[1].stubs


async def test_a_reader_of_one_server_gets_what_is_published_through_the_other(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await create(here)
    call = await opened(there)
    await append(here, a_run_of(50, finished=False))
    frames = await read_until(call, lambda frames: len(frames.events) == 50)
    await append(here, [text_delta("x" * 100_000), text_delta()], first=51)
    await append(there, [message_finished(), run_finished()], first=53)
    assert (await read_to_end(call, frames)).sequences == list(range(1, 55))


async def test_a_token_of_one_server_resumes_on_the_other(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await create(here)
    await append(here, a_run_of(20, finished=False))
    first = stream(here, session_id="one", attempt=1)
    frames = await read_until(first, "events")
    first.cancel()
    again = stream(there, session_id="one", attempt=2, resume_token=frames.last.resume_token)
    await append(there, [run_finished()], first=21)
    assert (await read_to_end(again)).sequences == list(range(len(frames.events) + 1, 22))


async def test_a_place_is_one_over_all_servers(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await create(here)
    old = await opened(here, session_id="one", attempt=1)
    assert (await refused(there, session_id="two", attempt=1)).reason == "CONSUMER_BUSY"
    assert (await refused(there, session_id="one", attempt=1)).reason == "STALE_ATTEMPT"
    new = await opened(there, session_id="one", attempt=2)
    assert (await failure(old)).reason == "STREAM_DISPLACED"
    await append(here, a_run_of(4))
    assert (await read_to_end(new)).sequences == [1, 2, 3, 4]
    assert (await read_to_end(stream(here, session_id="two"))).sequences == [1, 2, 3, 4]


async def test_a_cancel_reaches_a_producer_of_the_other_server(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await create(here)
    async with publishing(here) as call:
        await publish(call, [run_started()])
        assert (await answer(call)).receipt.last_sequence == 1
        await there.runs.CancelRun(CancelRunRequest(run_id="run", reason="enough"))
        assert (await call.cancel_request()).reason == "enough"


async def test_who_waits_or_watches_hears_of_the_other_server(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    watch = there.runs.WatchRuns(WatchRunsRequest(), timeout=PATIENCE)
    await watched(watch)
    await create(here)
    waiting = asyncio.ensure_future(there.runs.WaitRun(WaitRunRequest(run_id="run"), timeout=PATIENCE))
    await append(here, a_run_of(4))
    assert (await waiting).run.state == RunState.RUN_STATE_SUCCEEDED
    while not (frame := await watched(watch)).runs or frame.runs[0].state != RunState.RUN_STATE_SUCCEEDED:
        pass
    watch.cancel()
    resumed = here.runs.WatchRuns(WatchRunsRequest(resume_token=frame.resume_token), timeout=PATIENCE)
    await watched(resumed)
    await create(there, "next")
    assert [run.run_id for run in (await watched(resumed)).runs] == ["next"]
    resumed.cancel()


async def watched(watch: "UnaryStreamCall[WatchRunsRequest, WatchRunsResponse]") -> WatchRunsResponse:
    """The next frame of a watch."""
    frame = await watch.read()
    assert isinstance(frame, WatchRunsResponse)
    return frame


async def test_a_page_of_one_server_goes_on_at_the_other(pair: tuple[Stubs, Stubs]) -> None:
    for number in range(6):
        await create(pair[number % 2], str(number))

    async def listed() -> bool:
        pages = [await stubs.runs.ListRuns(ListRunsRequest(page_size=6)) for stubs in pair]
        return all(len(page.runs) == 6 for page in pages)

    await until(listed)
    found: list[str] = []
    token = ""
    while len(found) < 6:
        page = await pair[len(found) % 2].runs.ListRuns(ListRunsRequest(page_size=1, page_token=token))
        found += [run.run_id for run in page.runs]
        token = page.next_page_token or token
    assert found == ["5", "4", "3", "2", "1", "0"]


async def test_a_deleted_run_ends_streams_of_the_other_server(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await create(here)
    await append(here, a_run_of(4))
    assert (await get(there)).state == RunState.RUN_STATE_SUCCEEDED
    await delete(here)
    assert (await refused(there)).reason == "RUN_NOT_FOUND"


async def test_a_reader_goes_from_a_server_that_stops_to_the_other_without_a_gap(
    location: Location, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        staying = await stack.enter_async_context(serving(tmp_path, store=str(location)))
        async with serving(tmp_path, store=str(location)) as going:
            reader = await stack.enter_async_context(connected(going.target))
            await create(reader)
            await append(reader, [run_started(), *(custom() for _ in range(30))])
            call = stream(reader, session_id="one", attempt=1)
            frames = await read_until(call, "caught_up")
            reading = asyncio.ensure_future(read_to_end(call, frames))
        await reading
        again = stream(staying.stubs, session_id="one", attempt=2, resume_token=frames.last.resume_token)
        first = await read(again)
        assert first.opened.fence > frames.of("opened").opened.fence
        await append(staying.stubs, [run_finished()], first=32)
        assert [*frames.sequences, *(await read_to_end(again)).sequences] == list(range(1, 33))
