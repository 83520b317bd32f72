"""The streams of an agent's events, and the task that the agent runs in."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from lavant.client import AsyncRunProducer
from lavant.client.integrations.agent_streaming.stream_event import StreamEvent

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
_AHEAD = 1


class Feed:
    """Queue of events from the agent to its reader; the agent waits while one of them has not been read."""

    def __init__(self) -> None:
        self.is_closed = False
        self.run: AsyncRunProducer | None = None
        self._events: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_AHEAD)

    def recorded(self, run: AsyncRunProducer) -> None:
        """Note the run that the agent is recorded in."""
        self.run = run

    async def put(self, event: StreamEvent) -> None:
        """Queue an event, after the one before has been read."""
        await self._room.acquire()
        if self.is_closed:
            raise asyncio.CancelledError("the stream of the agent was closed")
        self._events.put_nowait(event)

    def put_last(self, events: Iterable[StreamEvent]) -> None:
        """Queue the few events that must not wait: the agent has stopped."""
        for event in events:
            self._events.put_nowait(event)

    def end(self) -> None:
        """End the queue."""
        self._events.put_nowait(None)

    async def get(self) -> StreamEvent | None:
        """Wait for the next event; return None after the last one."""
        event = await self._events.get()
        self._room.release()
        return event


class AgentStream(AsyncIterator[StreamEvent], Generic[ResultT]):
    """The events of an agent, which works while they are read: at most one event ahead of its reader.

    The agent starts when the first event is read, or when the stream is awaited. Its exception is raised to the reader
    after the last event. Leaving `async with`, `aclose`, cancelling the reader or dropping the stream stops the agent
    at once; the first three wait until it has stopped.

    Raises RuntimeError if a second task reads at the same time, and if a loop starts after the end. A loop that was
    left may be continued by another one.

    Example:
        async with run_stream(agent, "How is it in Oslo?", client=client) as stream:
            kinds = [event.event_type async for event in stream]
        assert (kinds[0], kinds[-1]) == ("agent_start", "agent_end")
        assert stream.result.output == "It is cold."
        assert (await client.runs.get(stream.run.id)).state == "succeeded"
    """

    def __init__(self, run: Callable[[Feed], Coroutine[Any, Any, ResultT]]) -> None:
        self.result: ResultT | None = None
        self._is_over = self._is_read = False
        self._run = run
        self._feed: Feed | None = None
        self._task: asyncio.Task[ResultT] | None = None

    @property
    def run(self) -> AsyncRunProducer | None:
        """The run that the agent is recorded in, once it has started; None for an agent that is not recorded."""
        return self._feed.run if self._feed else None

    async def aclose(self) -> None:
        """Stop the agent, and wait until it has stopped."""
        self._is_over = True
        if self._feed is not None and self._task is not None and not self._task.done():
            self._feed.is_closed = True
            self._task.cancel()
            await asyncio.wait({self._task})

    def __aiter__(self) -> Self:
        if self._is_over:
            raise RuntimeError("the stream has been read or closed: it is read once; call the function again")
        return self

    async def __anext__(self) -> StreamEvent:
        if self._is_over:
            raise StopAsyncIteration
        if self._is_read:
            raise RuntimeError("another task reads the stream: it has one reader; copy its events to the others")
        self._is_read = True
        try:
            return await self._next()
        finally:
            self._is_read = False

    async def _next(self) -> StreamEvent:
        feed, task = self._start()
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
        return self._started().__await__()

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

    async def _started(self) -> Self:
        self._start()
        return self

    def _start(self) -> tuple[Feed, asyncio.Task[ResultT]]:
        if self._feed is None or self._task is None:
            self._feed = feed = Feed()
            self._task = asyncio.create_task(self._run(feed))
            # Must not hold the stream: it would never be dropped.
            self._task.add_done_callback(lambda task: _end(feed, task))
        return self._feed, self._task


class SelectionStream(AsyncIterator[ItemT]):
    """A selection from an agent's events, read once by one reader.

    Leaving the loop and dropping the stream stops the agent, `aclose` waits until it has stopped.

    Example:
        texts = stream_text(agent, "How is it in Oslo?")
        assert "".join([text async for text in texts]) == "It is cold."
    """

    def __init__(self, stream: AgentStream[Any], select: Callable[[StreamEvent], ItemT | None]) -> None:
        self._stream = stream
        self._select = select

    async def aclose(self) -> None:
        """Stop the agent, and wait until it has stopped."""
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        aiter(self._stream)
        return self

    async def __anext__(self) -> ItemT:
        while True:
            item = self._select(await anext(self._stream))
            if item is not None:
                return item


def _end(feed: Feed, task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # retrieved, because there may be no reader left
    feed.end()
