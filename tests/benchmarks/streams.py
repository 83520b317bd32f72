"""Memory of an open stream in the client, in a process with nothing else in it."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import psutil
import uvloop

from benchmarks.kit.process import Process, process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import Bench, Figures
from benchmarks.peers.base import at_once
from benchmarks.peers.lavant import LavantClient, serve
from lavant.client import AsyncClient
from lavant.v1.event_service_pb2 import StreamEventsRequest
from support.server import connected

STREAMS_PER_CONNECTION = 90  # the server takes 100 calls, and the client keeps some free
MEMORY = "KiB each"


async def run(bench: Bench) -> list[Table]:
    """Compare with bare grpc.aio calls, each in a process of its own; streams wait at the end of their runs' logs."""
    streams = bench.size(1_000, quick=200)
    async with serve(bench.subfolder("lavant")) as server:
        async with LavantClient.connect(server.address) as connection:
            await at_once(16, streams, lambda number: connection.create(f"idle-{number}"))
        measured = await bench.interleaved(
            {
                "lavant": partial(_measured, bench, server, "client", streams),
                "bare": partial(_measured, bench, server, "bare", streams),
            },
            warm_up=False,
        )
    return [
        Table(
            name="streams",
            title=f"{streams:,} open streams in one client process",
            measured=measured,
            aims=[Aim(unit=MEMORY, at_most=40)],
            recorded=[MEMORY],
            baseline="bare",
        )
    ]


async def _measured(bench: Bench, server: Process, kind: str, streams: int, _: int) -> Figures:
    command = (sys.executable, "-m", "benchmarks.streams", kind, server.address, "--streams", streams)
    async with process(*command, folder=bench.subfolder(kind)) as client:
        return {MEMORY: float(client.line)}


@asynccontextmanager
async def _client_streams(target: str, count: int) -> AsyncIterator[None]:
    """Streams of one client, all read as far as there is something to read."""
    async with AsyncClient(target) as client:
        streams = [client.runs.stream(f"idle-{number}") for number in range(count)]
        reading = [asyncio.ensure_future(anext(stream)) for stream in streams]
        while not all(stream.caught_up for stream in streams):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
        yield
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)


@asynccontextmanager
async def _bare_streams(target: str, count: int) -> AsyncIterator[None]:
    """The same number of calls of the generated stub, over as many connections as they need."""
    async with AsyncExitStack() as stack:
        calls = []
        for number in range(count):
            if number % STREAMS_PER_CONNECTION == 0:
                stubs = await stack.enter_async_context(connected(target))
            calls.append(stubs.events.StreamEvents(StreamEventsRequest(run_id=f"idle-{number}", consumer_id="bench")))
            await calls[-1].read()  # opened
        reading = [asyncio.ensure_future(_read_on(call)) for call in calls]
        await asyncio.sleep(1)
        yield
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)


async def _read_on(call: AsyncIterable[object]) -> None:
    async for _ in call:
        pass


async def _hold(kind: str, target: str, count: int) -> None:
    """Print what each stream adds, in KiB, once one stream has brought in what all share."""
    opened = _client_streams if kind == "client" else _bare_streams
    async with opened(target, 1):
        pass
    memory = psutil.Process().memory_info
    before = memory().rss
    async with opened(target, count):
        print((memory().rss - before) / count / 1024, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["client", "bare"])
    parser.add_argument("target")
    parser.add_argument("--streams", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(_hold(arguments.kind, arguments.target, arguments.streams))
