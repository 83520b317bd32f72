"""Live delivery, event by event: from the call that publishes to the reader's hand, in an open loop."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import uvloop

from benchmarks.kit.process import Process, process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P50, SERVER_CPU, Bench, Figures, Meter, latencies
from benchmarks.peers.registry import Running, running
from benchmarks.peers.registry import system as system_of

RATE = 100
WARM_UP = 0.25  # of a round's events
LIMIT = 20.0


async def run(bench: Bench) -> list[Table]:
    """Measure at 100 events/s; each system's readers are a process of their own."""
    async with running(bench, "lavant", "bare + SQLite", "bare", "redis", "postgres", "nats") as systems:
        measured = await deliveries(bench, {name: (name, system) for name, system in systems.items()})
    return [
        Table(
            name="live",
            title=f"live, event by event, {RATE}/s, from publishing to the reader",
            measured=measured,
            aims=[
                Aim(unit=P50, beside="bare + SQLite", at_most=1.4),
                Aim(unit=SERVER_CPU, beside="bare", at_most=1.6),
            ],
            recorded=[SERVER_CPU],
            baseline="bare",
        )
    ]


async def deliveries(
    bench: Bench, systems: Mapping[str, tuple[str, Running]], addresses: Mapping[str, str] = {}
) -> dict[str, list[Figures]]:
    """Publish in an open loop through systems, which are named too, to readers at their servers or other addresses."""
    events = bench.size(150, quick=100)
    async with AsyncExitStack() as stack:
        measures = {}
        for name, (system_name, system) in systems.items():
            address = addresses.get(name) or _address(system)
            command = (sys.executable, "-m", "benchmarks.live", system_name, address)
            readers = await stack.enter_async_context(process(*command, folder=bench.subfolder("readers")))
            measures[name] = partial(_deliver, system, readers, events)
        return await bench.interleaved(measures, warm_up=False)


async def _deliver(system: Running, readers: Process, events: int, round_number: int) -> Figures:
    run = f"live-{round_number}"
    async with system.connection.producing(run) as publish, asyncio.timeout(LIMIT + events / RATE):
        readers.say(f"{run} {events}")
        await readers.next_line()
        with Meter(system.server) as meter:
            began = time.monotonic()
            for number in range(events):
                await asyncio.sleep(max(0, began + number / RATE - time.monotonic()))
                await publish(f"{time.monotonic():.6f} {'x' * 80}")
            received = await readers.next_line()
    figures = meter.figures("events", events)
    figures.pop("events/s")
    return {**latencies(json.loads(received)[int(events * WARM_UP) :]), **figures}


def _address(system: Running) -> str:
    assert system.server is not None
    return system.server.address


async def _read(name: str, address: str) -> None:
    """Read a run per line of standard input; print a line when ready, then the seconds that each event took."""
    async with system_of(name).connect(address) as connection:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            run, events = line.split()
            print("reading", flush=True)
            seconds: list[float] = []
            async for text in connection.follow(run):
                seconds.append(time.monotonic() - float(text.split()[0]))
                if len(seconds) == int(events):
                    break
            print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    uvloop.run(_read(sys.argv[1], sys.argv[2]))
