"""Durable publishing by one producer in batches of 100 events."""

from functools import partial

from benchmarks.events import TEXT
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import SERVER_CPU, Bench, Figures, Meter
from benchmarks.peers.base import at_once
from benchmarks.peers.registry import Running, running, table_name

SIZE = 100
IN_FLIGHT = 64
RATE = "events/s"


async def waiting(bench: Bench) -> list[Table]:
    """Measure a producer that waits for each answer."""
    systems = ("lavant stubs", "bare", "bare + SQLite", "redis", "postgres", "durable-streams")
    return [await _measured(bench, "publish", 1, systems)]


async def in_flight(bench: Bench) -> list[Table]:
    """Measure a producer that has 64 batches in flight; the systems beside it use as many connections as they need."""
    systems = ("lavant stubs", "bare", "bare + SQLite", "redis", "postgres")
    return [await _measured(bench, "publish-64", IN_FLIGHT, systems)]


async def _measured(bench: Bench, name: str, width: int, names: tuple[str, ...]) -> Table:
    batches = bench.size(300, quick=150)
    async with running(bench, *names, width=width) as systems:
        measured = await bench.interleaved(
            {table_name(name): partial(publish, system, width, batches) for name, system in systems.items()}
        )
    return Table(
        name=name,
        title=f"durable publishing, batches of {SIZE}, {width} in flight",
        measured=measured,
        aims=[Aim(unit=RATE, beside="postgres", at_least=1.2), Aim(unit=SERVER_CPU, at_most=5)],
        recorded=[SERVER_CPU],
        baseline="bare",
    )


async def publish(system: Running, width: int, batches: int, round_number: int) -> Figures:
    """Publish batches to a new run, so many in flight; they are encoded before."""
    run = f"publish-{round_number}"
    await system.connection.create(run)
    encoded = [system.connection.encode(run, 1 + SIZE * number, [TEXT] * SIZE) for number in range(batches)]
    with Meter(system.server) as meter:
        await at_once(width, batches, lambda number: system.connection.append(encoded[number]))
    return meter.figures("events", batches * SIZE)
