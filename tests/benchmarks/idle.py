"""Streams on which nothing happens: what opening one costs, what it takes in memory, and the CPU of heartbeats."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack

from google.protobuf.duration_pb2 import Duration

from benchmarks import crowd
from benchmarks.events import create_request
from benchmarks.kit.process import Process, process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import Bench
from benchmarks.peers import bare_server
from benchmarks.peers.bare import Bare
from benchmarks.peers.base import at_once
from benchmarks.peers.lavant import STREAM, serve
from lavant.v1.event_service_pb2 import StreamEventsRequest
from support.server import connected

INTERVAL = 15  # seconds between heartbeats
STATED = 5_000  # streams of the CPU figure
OPENED, MEMORY, CPU = "open: server CPU µs", "KiB each", f"CPU s a minute of {STATED:,}"


async def run(bench: Bench) -> list[Table]:
    """Measure pairs of servers side by side, which are all idle at once; each stream is on a run of its own."""
    streams = bench.size(1_000, quick=200)
    rest = bench.size(INTERVAL, quick=3)  # one heartbeat per stream, as often as that
    async with AsyncExitStack() as stack:
        measured: dict[str, list[dict[str, float]]] = {"lavant": [], "bare": []}
        servers: list[tuple[Process, dict[str, float]]] = []
        for number in range(bench.rounds):
            for name, start in (("lavant", serve), ("bare", Bare.serve)):
                server = await stack.enter_async_context(start(bench.subfolder(f"{name}-{number}")))
                figures = await _opened(stack, bench, name, server, streams, rest)
                measured[name].append(figures)
                servers.append((server, figures))
        await asyncio.sleep(1)
        before = [(server.cpu(), time.monotonic()) for server, _ in servers]
        await asyncio.sleep(rest)
        for (server, figures), (cpu, began) in zip(servers, before, strict=True):
            rests = (time.monotonic() - began) / rest
            figures[CPU] = (server.cpu() - cpu) / rests * 60 / INTERVAL * STATED / streams
    return [
        Table(
            name="idle",
            title=f"idle streams, {streams:,} a server, {crowd.STREAMS_A_CONNECTION} a connection",
            measured=measured,
            aims=[Aim(unit=CPU, at_most=1), Aim(unit=OPENED, at_most=400), Aim(unit=MEMORY, at_most=20)],
            recorded=[OPENED, MEMORY],
            baseline="bare",
        )
    ]


async def _opened(
    stack: AsyncExitStack, bench: Bench, name: str, server: Process, streams: int, rest: int
) -> dict[str, float]:
    """Open streams, and keep them open as long as the stack."""
    if name == "lavant":
        await _create_runs(server, streams)
        request = StreamEventsRequest(
            run_id=_run(99_999), consumer_id="bench", heartbeat_interval=Duration(seconds=rest)
        )
        path, body = STREAM, request.SerializeToString().replace(_run(99_999).encode(), b"idle-" + crowd.PLACEHOLDER)
    else:
        path, body = bare_server.STREAM, b"idle-" + crowd.PLACEHOLDER
    cpu, memory = server.cpu(), server.memory()
    command = (sys.executable, "-m", "benchmarks.crowd", "grpc", server.address, path, streams, body.hex())
    await stack.enter_async_context(process(*command, folder=bench.subfolder("readers")))
    return {
        OPENED: (server.cpu() - cpu) / streams * 1e6,
        MEMORY: (server.memory() - memory) / streams / 1024,
    }


async def _create_runs(server: Process, count: int) -> None:
    async with connected(server.address) as stubs:

        async def create(number: int) -> None:
            await stubs.runs.CreateRun(create_request(_run(number)))

        await at_once(16, count, create)


def _run(number: int) -> str:
    return f"idle-{number:05}"
