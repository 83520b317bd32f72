"""How a run ended is told alike by every way to read it, and a cut connection is never taken for an end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.client import (
    AsyncClient,
    AsyncRunStream,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunNotSucceeded,
    RunState,
    RunTimedOut,
    StreamCut,
    Unavailable,
)
from lavant.v1 import run_pb2
from support.calls import PATIENCE, append, create, until
from support.clock import ManualClock
from support.events import message_started, run_finished, run_started, text_delta
from support.events import tool_call_finished as tool_done
from support.events import tool_call_started as tool_begun
from support.proxy import Proxy
from support.server import Server

BEGUN = [run_started(), message_started(), text_delta(), tool_begun(), tool_done()]


async def iterated(stream: AsyncRunStream) -> RunState:
    state = ""
    async for event in stream:
        if event.type == "run_finished":
            state = run_pb2.RunState.Name(event.data.state).removeprefix("RUN_STATE_").lower()
    assert state, "the iteration ended before the run"
    return RunState(state)


async def text_chunks(stream: AsyncRunStream) -> None:
    async for _ in stream.text_chunks:
        pass


async def tool_calls(stream: AsyncRunStream) -> None:
    async for _ in stream.tool_calls:
        pass


# How a run is read to its end. What is told without an exception is the state that it returns, or success.
async def steps(stream: AsyncRunStream) -> None:
    """Every step."""
    async for _ in stream.steps:
        pass


async def progress(stream: AsyncRunStream) -> None:
    """Every report of progress."""
    async for _ in stream.progress:
        pass


VIEWS: dict[str, Callable[[AsyncRunStream], Awaitable[object]]] = {
    "iteration": iterated,
    "text_chunks": text_chunks,
    "tool_calls": tool_calls,
    "steps": steps,
    "progress": progress,
    "collect": lambda stream: stream.collect(),
    "text": lambda stream: stream.text(),
    "result": lambda stream: stream.result(),
}
# How a run may end, and what all views but iteration raise then.
OUTCOMES: dict[RunState, type[RunNotSucceeded] | None] = {
    RunState.SUCCEEDED: None,
    RunState.FAILED: RunFailed,
    RunState.CANCELLED: RunCancelled,
    RunState.TIMED_OUT: RunTimedOut,
    RunState.ABANDONED: RunAbandoned,
}
views = pytest.mark.parametrize("view", VIEWS)
outcomes = pytest.mark.parametrize("state", OUTCOMES)


@pytest.fixture
async def timed_client(timed_server: Server) -> AsyncIterator[AsyncClient]:
    """A client of a server whose clock is the test's."""
    async with AsyncClient(timed_server.target) as opened:
        yield opened


async def let_end(server: Server, clock: ManualClock, state: RunState) -> None:
    """Let a run end: by its producer, or for lack of one."""
    silence = Duration(seconds=5) if state is RunState.ABANDONED else None
    await create(server.stubs, producer_timeout=silence)
    await append(server.stubs, BEGUN)
    if state is RunState.ABANDONED:
        clock.advance(6.1)
    else:
        await append(server.stubs, [run_finished(run_pb2.RunState.Value(f"RUN_STATE_{state.name}"))], first=6)


@views
@outcomes
async def test_a_stream_tells_how_the_run_ended(
    timed_server: Server, timed_client: AsyncClient, clock: ManualClock, view: str, state: RunState
) -> None:
    await let_end(timed_server, clock, state)
    raised = OUTCOMES[state]
    stream = timed_client.runs.stream("run")
    if view == "iteration":
        assert await iterated(stream) is state
    elif raised is None:
        await VIEWS[view](stream)
    else:
        with pytest.raises(raised) as caught:
            await VIEWS[view](stream)
        assert caught.value.result.state is state


@outcomes
async def test_waiting_tells_how_the_run_ended(
    timed_server: Server, timed_client: AsyncClient, clock: ManualClock, state: RunState
) -> None:
    await let_end(timed_server, clock, state)
    run = await timed_client.runs.wait("run", PATIENCE)
    assert (run.state, run.has_ended) == (state, True)


@views
async def test_a_cut_is_no_end(server: Server, view: str) -> None:
    await create(server.stubs)
    await append(server.stubs, BEGUN)
    async with Proxy(server.target, Random(1)) as proxy, AsyncClient(proxy.target) as client:
        stream = client.runs.stream("run", reconnect_timeout=0.1)
        reading = asyncio.ensure_future(VIEWS[view](stream))
        await until(lambda: stream.last_sequence == len(BEGUN))
        proxy.vanish()
        with pytest.raises(StreamCut):
            await reading
        token = stream.resume_token
    async with AsyncClient(server.target) as client:
        await append(server.stubs, [run_finished()], first=6)
        assert [event.sequence async for event in client.runs.stream("run", resume_token=token)] == [6]


@views
async def test_a_server_that_was_never_there_is_no_end(view: str) -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(Unavailable):
            await VIEWS[view](client.runs.stream("run", reconnect_timeout=0.1))
