"""What an idle stream costs the server in memory."""

from contextlib import AsyncExitStack
from pathlib import Path

import psutil
from grpc import aio

from benchmarks.report import Ratio
from lavant.v1.event_service_pb2 import StreamEventsRequest, StreamEventsResponse
from lavant.v1.run_service_pb2 import CreateRunRequest
from support.server import ServerProcess, Stubs, connected

STREAMS_PER_CONNECTION = 100
LIMIT_KIB = 60


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with the limit: each stream on a run of its own, 100 a connection, connections included."""
    count = 500 if quick else 5_000
    server = ServerProcess(folder)
    await server.start()
    try:
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(connected(server.target))
                for _ in range(count // STREAMS_PER_CONNECTION)
            ]
            for number in range(count):
                await _create(connections[0], number)
            process = psutil.Process(server.pid)
            before = process.memory_info().rss
            streams = [await _open(connections[number % len(connections)], number) for number in range(count)]
            each = (process.memory_info().rss - before) / count / 1024
            assert not any(stream.done() for stream in streams)
    finally:
        await server.kill()
    return Ratio(
        name=f"{count:,} idle streams",
        unit="KiB each",
        ours=each,
        theirs=LIMIT_KIB,
        compared_with="the limit in KiB",
        at_most=1,
    )


async def _create(stubs: Stubs, number: int) -> None:
    await stubs.runs.CreateRun(CreateRunRequest(run_id=f"idle-{number}", name="idle"))


async def _open(stubs: Stubs, number: int) -> aio.UnaryStreamCall[StreamEventsRequest, StreamEventsResponse]:
    call = stubs.events.StreamEvents(StreamEventsRequest(run_id=f"idle-{number}", consumer_id="bench"))
    for expected in ("opened", "caught_up"):
        frame = await call.read()
        assert isinstance(frame, StreamEventsResponse)
        assert frame.WhichOneof("frame") == expected, frame
    return call
