"""Every way to read a run reports the same end, and a cut connection is never taken for one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Protocol

import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.client import (
    AsyncClient,
    AsyncRunStream,
    Client,
    Event,
    Run,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunNotSucceeded,
    RunState,
    RunStream,
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
WHOLE = ["text", "result", "collect"]
VIEWS = ["events", "text_chunks", "tool_calls", "steps", "progress", *WHOLE]
# How a run may end, and what all views but the events themselves raise then.
OUTCOMES: dict[RunState, type[RunNotSucceeded] | None] = {
    RunState.SUCCEEDED: None,
    RunState.FAILED: RunFailed,
    RunState.CANCELLED: RunCancelled,
    RunState.TIMED_OUT: RunTimedOut,
    RunState.ABANDONED: RunAbandoned,
}


class Reader(Protocol):
    """A client of one flavour, with a stream of the run."""

    stream: AsyncRunStream | RunStream

    async def read(self, view: str) -> Any:
        """Read the stream to its end by one of its views, and return its value or values."""
        ...

    async def wait(self) -> Run:
        """Wait for the run's end."""
        ...

    async def close(self) -> None:
        """Close the client."""
        ...


class AsyncReader:
    def __init__(self, target: str, **settings: Any) -> None:
        self._client = AsyncClient(target)
        self.stream = self._client.runs.stream("run", **settings)

    async def read(self, view: str) -> Any:
        found = getattr(self.stream, view)
        return await found() if view in WHOLE else [item async for item in found]

    async def wait(self) -> Run:
        return await self._client.runs.wait("run", PATIENCE)

    async def close(self) -> None:
        await self._client.aclose()


class BlockingReader:
    def __init__(self, target: str, **settings: Any) -> None:
        self._client = Client(target)
        self.stream = self._client.runs.stream("run", **settings)

    async def read(self, view: str) -> Any:
        def work() -> Any:
            found = getattr(self.stream, view)
            return found() if view in WHOLE else list(found)

        return await asyncio.to_thread(work)

    async def wait(self) -> Run:
        return await asyncio.to_thread(self._client.runs.wait, "run", PATIENCE)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)


New = Callable[..., Reader]
views = pytest.mark.parametrize("view", VIEWS)
outcomes = pytest.mark.parametrize("state", OUTCOMES)
pytestmark = pytest.mark.parametrize("new", [AsyncReader, BlockingReader])


@asynccontextmanager
async def opened(new: New, target: str, **settings: Any) -> AsyncIterator[Reader]:
    """A reader, closed at the block's end."""
    reader = new(target, **settings)
    try:
        yield reader
    finally:
        await reader.close()


async def let_end(server: Server, clock: ManualClock, state: RunState) -> None:
    """Let a run end: by its producer, or for lack of one."""
    silence = Duration(seconds=5) if state is RunState.ABANDONED else None
    await create(server.stubs, producer_timeout=silence)
    await append(server.stubs, BEGUN)
    if state is RunState.ABANDONED:
        clock.advance(6.1)
    else:
        await append(server.stubs, [run_finished(run_pb2.RunState.Value(f"RUN_STATE_{state.name}"))], first=6)


def state_in(events: list[Event]) -> RunState:
    """Return the state in a run's last event."""
    assert events[-1].type == "run_finished", "the stream ended before the run"
    return events[-1].data.state


@views
@outcomes
async def test_a_stream_reports_how_the_run_ended(
    timed_server: Server, clock: ManualClock, new: New, view: str, state: RunState
) -> None:
    await let_end(timed_server, clock, state)
    raised = OUTCOMES[state]
    async with opened(new, timed_server.target) as reader:
        if view == "events":
            assert state_in(await reader.read(view)) is state
        elif raised is None:
            await reader.read(view)
        else:
            with pytest.raises(raised) as caught:
                await reader.read(view)
            assert caught.value.result.state is state


@outcomes
async def test_waiting_reports_how_the_run_ended(
    timed_server: Server, clock: ManualClock, new: New, state: RunState
) -> None:
    await let_end(timed_server, clock, state)
    async with opened(new, timed_server.target) as reader:
        run = await reader.wait()
    assert (run.state, run.has_ended) == (state, True)


@views
async def test_a_cut_is_no_end(server: Server, new: New, view: str) -> None:
    await create(server.stubs)
    await append(server.stubs, BEGUN)
    async with (
        Proxy(server.target, Random(1)) as proxy,
        opened(new, proxy.target, reconnect_timeout=0.1) as reader,
    ):
        reading = asyncio.ensure_future(reader.read(view))
        await until(lambda: reader.stream.last_sequence == len(BEGUN))
        proxy.vanish()
        with pytest.raises(StreamCut):
            await reading
        token = reader.stream.resume_token
    async with opened(new, server.target, resume_token=token) as reader:
        await append(server.stubs, [run_finished()], first=6)
        assert [event.sequence for event in await reader.read("events")] == [6]


@views
async def test_a_server_that_was_never_there_is_no_end(new: New, view: str) -> None:
    async with opened(new, "127.0.0.1:1", reconnect_timeout=0.1) as reader:
        with pytest.raises(Unavailable):
            await reader.read(view)
