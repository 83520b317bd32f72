"""Readers and producers over each flavour of the client, so that one test body serves all flavours."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from lavant.client import AsyncClient, Client
from lavant.client._reading.plan import Deltas
from lavant.v1.event_pb2 import Event

FLUSH_EVERY = 250  # events: small batches, so that a cut connection has often carried some of them


class Driver(Protocol):
    """A flavour of the client at work, with a client of its own for each call."""

    async def read(self, target: str, run_id: str, deltas: Deltas, take: Callable[[Event], None]) -> None:
        """Read a run to its end; `take` gets each event, in the event loop of the test or outside of it."""
        ...

    async def publish(self, target: str, run_id: str, events: AsyncIterator[Event]) -> None:
        """Execute a run that says these events, and make sure that all are durable."""
        ...


class AsyncDriver:
    """Drives `AsyncClient`."""

    async def read(self, target: str, run_id: str, deltas: Deltas, take: Callable[[Event], None]) -> None:
        async with (
            AsyncClient(target) as client,
            client.runs.stream(run_id, consumer="ui", wait_for_run=True, deltas=deltas) as stream,
        ):
            async for event in stream:
                take(event.proto)

    async def publish(self, target: str, run_id: str, events: AsyncIterator[Event]) -> None:
        async with AsyncClient(target) as client, client.runs.start("weather", run_id=run_id, on_error="raise") as run:
            count = 0
            async for event in events:
                await run.publish(event)
                count += 1
                if count % FLUSH_EVERY == 0:
                    await run.flush()


class SyncDriver:
    """Drives `Client`, in a thread."""

    async def read(self, target: str, run_id: str, deltas: Deltas, take: Callable[[Event], None]) -> None:
        def work() -> None:
            with (
                Client(target) as client,
                client.runs.stream(run_id, consumer="ui", wait_for_run=True, deltas=deltas) as stream,
            ):
                for event in stream:
                    take(event.proto)

        await asyncio.to_thread(work)

    async def publish(self, target: str, run_id: str, events: AsyncIterator[Event]) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            with Client(target) as client, client.runs.start("weather", run_id=run_id, on_error="raise") as run:
                for count, event in enumerate(iterated(events, loop), start=1):
                    run.publish(event)
                    if count % FLUSH_EVERY == 0:
                        run.flush()

        await asyncio.to_thread(work)


def iterated(events: AsyncIterator[Event], loop: asyncio.AbstractEventLoop) -> Iterator[Event]:
    """What an event loop in another thread iterates over."""

    async def following() -> Event | None:
        return await anext(events, None)

    while (event := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield event


DRIVERS: list[Driver] = [AsyncDriver(), SyncDriver()]
