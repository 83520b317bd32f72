"""An agent at work in a task of its own, and whoever reads what it reports."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from lavant.client import AsyncRunProducer
from lavant.client.integrations._stream_event import StreamEvent

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
_AHEAD = 1


class Feed:
    """Carries events from the agent to its reader; the agent waits while one of them has not been read."""

    def __init__(self) -> None:
        self.is_closed = False
        self.run: AsyncRunProducer | None = None
        self._events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_AHEAD)

    def recorded(self, run: AsyncRunProducer) -> None:
        """Take the run that records the agent."""
        self.run = run

    async def put(self, event: StreamEvent) -> None:
        """Hand over an event, when the one before has been read."""
        await self._room.acquire()
        if self.is_closed:
            raise asyncio.CancelledError("nobody reads the agent's events any more")
        self._events.put_nowait(event)

    def put_last(self, events: Iterable[StreamEvent]) -> None:
        """Hand over the few events that must not wait: the agent has stopped."""
        for event in events:
            self._events.put_nowait(event)

    def end(self) -> None:
        """Report to the reader that nothing follows."""
        self._events.put_nowait(None)

    async def get(self) -> StreamEvent | None:
        """Wait for the next event; None: there is none."""
        event = await self._events.get()
        self._room.release()
        return event


class OneReader(AsyncIterator[ItemT]):
    """Base of streams that are read once, by one reader.

    Raises RuntimeError where a second task reads at the same time, and where a loop begins after the end.
    A loop that was left may be continued by another one.
    """

    def __init__(self) -> None:
        self._is_over = False
        self._is_read = False

    async def aclose(self) -> None:
        """Close the stream."""
        raise NotImplementedError

    def __aiter__(self) -> Self:
        if self._is_over:
            raise RuntimeError("the stream has been read or closed: it is read once; call the function again")
        return self

    async def __anext__(self) -> ItemT:
        if self._is_over:
            raise StopAsyncIteration
        if self._is_read:
            raise RuntimeError("another task reads the stream: it has one reader; give each reader its own queue")
        self._is_read = True
        try:
            return await self._next()
        finally:
            self._is_read = False

    async def _next(self) -> ItemT:
        """Return the next item; set `_is_over` and raise StopAsyncIteration where there is none."""
        raise NotImplementedError


class SelectionStream(OneReader[ItemT]):
    """What is selected from an agent's events, read once by one reader.

    Leaving the loop and dropping the stream stops the agent, `aclose` waits until it has stopped.

    Example:
        texts = stream_text(agent, "How is it in Oslo?")
        assert "".join([text async for text in texts]) == "It is cold."
    """

    def __init__(self, items: AsyncGenerator[ItemT, None]) -> None:
        super().__init__()
        self._items = items

    async def aclose(self) -> None:
        """Stop the agent, and wait until it has stopped."""
        self._is_over = True
        await self._items.aclose()

    async def _next(self) -> ItemT:
        try:
            return await anext(self._items)
        except BaseException:
            self._is_over = True
            raise


class AgentStream(OneReader[StreamEvent], Generic[ResultT]):
    """The events of an agent, which works while they are read: at most one event ahead of its reader.

    The agent begins with the first event that is asked for, or when the stream is awaited. What it raises
    reaches the reader after the last event. Leaving `async with`, `aclose`, cancelling the reader or
    dropping the stream stops the agent at once; the first three wait until it has stopped. For one reader, who
    reads once: RuntimeError otherwise.

    Example:
        async with run_stream(agent, "How is it in Oslo?", client=client) as stream:
            kinds = [event.event_type async for event in stream]
        assert (kinds[0], kinds[-1]) == ("agent_start", "agent_end")
        assert stream.result.output == "It is cold."
        assert (await client.runs.get(stream.run.id)).state == "succeeded"
    """

    def __init__(self, run: Callable[[Feed], Coroutine[Any, Any, ResultT]]) -> None:
        super().__init__()
        self.result: ResultT | None = None
        self._run = run
        self._feed: Feed | None = None
        self._task: asyncio.Task[ResultT] | None = None

    @property
    def run(self) -> AsyncRunProducer | None:
        """The run that records the agent, once it has begun; None for an agent that is not recorded."""
        return self._feed.run if self._feed else None

    async def aclose(self) -> None:
        """Stop the agent, and wait until it has stopped."""
        self._is_over = True
        if self._feed is not None and self._task is not None and not self._task.done():
            self._feed.is_closed = True
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _next(self) -> StreamEvent:
        feed, task = self._begin()
        try:
            event = await feed.get()
        except BaseException:
            await self.aclose()
            raise
        if event is not None:
            return event
        self._is_over = True
        self.result = task.result()
        raise StopAsyncIteration

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begun().__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._feed is not None and self._task is not None and not self._task.done():
            self._feed.is_closed = True
            # The collector may call this from any thread, and after the loop has been closed.
            with suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def _begun(self) -> Self:
        self._begin()
        return self

    def _begin(self) -> tuple[Feed, asyncio.Task[ResultT]]:
        if self._feed is None or self._task is None:
            self._feed = feed = Feed()
            self._task = asyncio.create_task(self._run(feed))
            # Must not hold the stream: it would never be dropped.
            self._task.add_done_callback(lambda task: _end(feed, task))
        return self._feed, self._task


def _end(feed: Feed, task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # retrieved: nobody may be left to ask for it
    feed.end()
