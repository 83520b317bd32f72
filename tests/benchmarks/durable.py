"""CPU of a million events stored durably and read once: server and client together, scaled up from fewer."""

from collections.abc import Mapping
from functools import partial

from benchmarks.events import TEXT
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import Bench, Figures, Meter
from benchmarks.peers.base import at_once
from benchmarks.peers.registry import Running, running, table_name

PRODUCERS = 16
CPU = "CPU s a million"
SERVER, CLIENT = "of which server s", "of which client s"
# Aims by the size of batches.
AIMS: Mapping[int, float] = {1: 200, 10: 30, 100: 7}
SYSTEMS = ("lavant stubs", "bare", "bare + SQLite", "redis", "postgres")


async def run(bench: Bench) -> list[Table]:
    """Measure 16 producers that each write a run, wait for each answer, and read the run."""
    tables = []
    async with running(bench, *SYSTEMS, width=PRODUCERS) as systems:
        for size, aim in AIMS.items():
            batches = bench.size(100, quick=20)
            measures = {
                table_name(name): partial(_store_and_read, system, size, batches) for name, system in systems.items()
            }
            tables.append(
                Table(
                    name=f"durable-{size}",
                    title=f"a million events in batches of {size} by {PRODUCERS} producers, stored and read",
                    measured=await bench.interleaved(measures),
                    aims=[Aim(unit=CPU, at_most=aim)],
                    recorded=[CPU],
                    baseline="bare",
                )
            )
    return tables


async def _store_and_read(system: Running, size: int, batches: int, round_number: int) -> Figures:
    connection = system.connection
    events = size * batches * PRODUCERS

    async def produce(producer: int) -> None:
        run = f"durable-{size}-{round_number}-{producer}"
        await connection.create(run)
        for number in range(batches):
            first, end = 1 + size * number, number == batches - 1
            await connection.append(connection.encode(run, first, [TEXT] * size, end=end))
        assert await connection.read(run) == size * batches * len(TEXT)

    with Meter(system.server) as meter:
        await at_once(PRODUCERS, PRODUCERS, produce)
    scale = 1e6 / events
    return {CPU: (meter.server + meter.client) * scale, SERVER: meter.server * scale, CLIENT: meter.client * scale}
