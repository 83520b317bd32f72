"""What an open stream costs the client in memory, in a process with nothing else in it."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import uvloop

from benchmarks.report import Ratio
from lavant.client import AsyncClient
from lavant.v1.event_service_pb2 import StreamEventsRequest
from lavant.v1.run_service_pb2 import CreateRunRequest
from support.server import ServerProcess, connected

STREAMS_PER_CONNECTION = 90  # the server takes 100 calls, and the client keeps some free
# A client has one connection, and the server lets it have 100 calls.
STREAMS = 1_000
LIMIT_KIB = 40


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with bare grpc.aio calls, each in a process of its own; streams wait at the end of their runs' logs."""
    server = ServerProcess(folder)
    await server.start()
    try:
        async with connected(server.target) as stubs:
            for number in range(STREAMS):
                await stubs.runs.CreateRun(CreateRunRequest(run_id=f"idle-{number}", name="idle"))
        ours = await _measured("client", server.target)
        theirs = await _measured("bare", server.target)
    finally:
        await server.kill()
    return Ratio(
        name=f"{STREAMS:,} streams in one client process (at most {LIMIT_KIB} KiB each)",
        unit="KiB each",
        ours=ours,
        theirs=theirs,
        compared_with="bare grpc.aio calls",
        at_most=LIMIT_KIB / theirs,
    )


async def _measured(kind: str, target: str) -> float:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.streams", kind, target, "--streams", str(STREAMS)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return float(output)


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
            await calls[-1].read()  # caught up
        reading = [asyncio.ensure_future(call.read()) for call in calls]
        await asyncio.sleep(0)
        yield
        for call in calls:
            call.cancel()
        await asyncio.wait(reading)


async def _hold(kind: str, target: str, count: int) -> None:
    """Print what each stream adds, in KiB, once one stream has brought in what all share."""
    opened = _client_streams if kind == "client" else _bare_streams
    async with opened(target, 1):
        pass
    process = psutil.Process()
    before = process.memory_info().rss
    async with opened(target, count):
        print((process.memory_info().rss - before) / count / 1024)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["client", "bare"])
    parser.add_argument("target")
    parser.add_argument("--streams", type=int, default=STREAMS)
    arguments = parser.parse_args()
    uvloop.run(_hold(arguments.kind, arguments.target, arguments.streams))
