"""One live run with many readers, which are raw sockets in a process of their own."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import crowd
from benchmarks.kit.process import Process, process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P50, P99, SERVER_CPU, Bench, Figures, Meter
from benchmarks.peers import bare_server
from benchmarks.peers.base import Publish
from benchmarks.peers.lavant import STREAM, http_address
from benchmarks.peers.registry import Running, running
from lavant.v1.event_service_pb2 import StreamEventsRequest

WIDTH = 8  # publishing calls at once: an open loop does not wait for answers
RUN = "fan-out"


async def small(bench: Bench) -> list[Table]:
    """Measure 200 readers at 20 events/s."""
    readers = bench.size(200, quick=100)
    measured = await _measured(bench, readers, 20, 2, ("lavant", "bare"))
    return [
        Table(
            name="fan-out",
            title=f"one run, {readers} readers, 20 events/s; CPU per delivery",
            measured=measured,
            aims=[Aim(unit=unit, beside="bare", at_most=1.4) for unit in (SERVER_CPU, P50)],
            recorded=[SERVER_CPU],
            baseline="bare",
        )
    ]


async def large(bench: Bench) -> list[Table]:
    """Measure 1,000 readers at 50 events/s, over gRPC and as server-sent events.

    NATS's readers are core subscriptions, which receive an event before it is stored.
    """
    systems = ("lavant", "lavant SSE", "bare", "redis", "nats")
    readers = bench.size(1_000, quick=200)
    measured = await _measured(bench, readers, 50, 1, systems)
    return [
        Table(
            name="fan-out-1000",
            title=f"one run, {readers:,} readers, 50 events/s; CPU per delivery",
            measured=measured,
            aims=[
                Aim(unit="delivered", at_least=1),
                Aim(unit=P50, at_most=40),
                Aim(unit=P99, at_most=120),
                Aim(unit="delivered", system="lavant SSE", at_least=1),
                Aim(unit=P99, system="lavant SSE", at_most=300),
            ],
        )
    ]


@dataclass(frozen=True, kw_only=True)
class _Audience:
    """A system with a live run, and the process that holds its readers."""

    system: Running
    publish: Publish
    readers: Process
    count: int


async def _measured(
    bench: Bench, readers: int, rate: int, seconds: int, names: tuple[str, ...]
) -> dict[str, list[Figures]]:
    async with AsyncExitStack() as stack:
        peers = [name for name in names if name != "lavant SSE"]
        systems = await stack.enter_async_context(running(bench, *peers, width=WIDTH))
        if "lavant SSE" in names:
            systems["lavant SSE"] = systems["lavant"]
        audiences = {
            name: await stack.enter_async_context(_audience(bench, name, systems[name], readers))
            for name in names
            if name in systems
        }
        measures = {name: partial(_deliver, audience, rate, seconds) for name, audience in audiences.items()}
        return await bench.interleaved(measures)


@asynccontextmanager
async def _audience(bench: Bench, name: str, system: Running, readers: int) -> AsyncIterator[_Audience]:
    """Start a run with its first event, and open its readers."""
    run = f"{RUN}-{name.replace(' ', '-')}"
    async with system.connection.producing(run) as publish:
        await publish("first")
        kind, address, subject, body = _readers(name, system, run)
        command = (sys.executable, "-m", "benchmarks.crowd", kind, address, subject, readers, body.hex())
        async with process(*command, folder=bench.subfolder(f"readers-{name}")) as opened:
            yield _Audience(system=system, publish=publish, readers=opened, count=readers)


def _readers(name: str, system: Running, run: str) -> tuple[str, str, str, bytes]:
    """Return the crowd's kind, address and subject, and what each reader sends."""
    assert system.server is not None
    address = system.server.address
    if name == "lavant":
        consumer = crowd.PLACEHOLDER.decode()
        # The placeholder is no consumer id, so it is written into the bytes of one as long.
        request = StreamEventsRequest(run_id=run, consumer_id="c" * len(consumer)).SerializeToString()
        return "grpc", address, STREAM, request.replace(b"c" * len(consumer), crowd.PLACEHOLDER)
    if name == "lavant SSE":
        address = http_address(system.server)
        return "sse", address, "", f"GET /api/v1/runs/{run}/stream HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    if name == "bare":
        return "grpc", address, bare_server.STREAM, run.encode()
    if name == "redis":
        return "redis", address, f"events:{run}", b""
    return "nats", address, "", f'CONNECT {{"verbose":false}}\r\nSUB bench.events.{run} 1\r\n'.encode()


async def _deliver(audience: _Audience, rate: int, seconds: int, _: int) -> Figures:
    events = rate * seconds
    sending = []
    with Meter(audience.system.server) as meter:
        began = time.monotonic()
        for number in range(events):
            await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
            sending.append(asyncio.ensure_future(audience.publish(crowd.stamped())))
        audience.readers.say(str(events))
        report: dict[str, float] = json.loads(await audience.readers.next_line())
        await asyncio.gather(*sending)
    deliveries = report["delivered"] * events * audience.count
    return {**report, SERVER_CPU: meter.server / max(1, deliveries) * 1e6}
