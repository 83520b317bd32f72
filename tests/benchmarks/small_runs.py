"""Whole small runs: create, 20 events, finish, read. The commonest work of all."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from benchmarks.events import SMALL_RUN
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P99, SERVER_CPU, Bench, Figures, Meter, latencies
from benchmarks.peers.base import at_once
from benchmarks.peers.registry import Running, running

Schedule = Callable[[int, int, Callable[[int], Awaitable[object]]], Awaitable[None]]
RATE = "runs/s"
SYSTEMS = ("lavant", "lavant stubs", "bare", "redis", "postgres")


async def one(bench: Bench) -> list[Table]:
    """Measure one run after the other."""
    return [await _measured(bench, (*SYSTEMS, "durable-streams"), 1, bench.size(150, quick=40))]


async def sixteen(bench: Bench) -> list[Table]:
    """Measure 16 runs at a time. durable-streams loses streams that are created at once: 201, then 404."""
    return [await _measured(bench, SYSTEMS, 16, bench.size(320, quick=64))]


async def fifty(bench: Bench) -> list[Table]:
    """Measure bursts of 50 runs, each of which starts when the last one is over."""
    return [await _measured(bench, SYSTEMS, 50, bench.size(500, quick=150), schedule=in_bursts)]


async def in_bursts(width: int, calls: int, call: Callable[[int], Awaitable[object]]) -> None:
    """Make so many calls, numbered from 0: `width` at once, and as many again when all of them are over."""
    for first in range(0, calls, width):
        await asyncio.gather(*(call(number) for number in range(first, min(calls, first + width))))


async def _measured(bench: Bench, names: tuple[str, ...], width: int, runs: int, schedule: Schedule = at_once) -> Table:
    async with running(bench, *names, width=width) as systems:
        measured = await bench.interleaved(
            {name: partial(_run, system, width, runs, schedule) for name, system in systems.items()}
        )
    return Table(
        name=f"small-runs-{width}" if width > 1 else "small-runs",
        title=f"create, {len(SMALL_RUN)} events, finish and read, {width} at a time",
        measured=measured,
        aims=[
            Aim(unit=RATE, beside="redis", at_least=0.6),
            Aim(unit=RATE, beside="postgres", at_least=0.8),
            Aim(unit=RATE, beside="bare", at_least=0.75),
            Aim(unit=SERVER_CPU, at_most=2_000),
        ],
        recorded=[SERVER_CPU],
        baseline="bare",
    )


async def _run(system: Running, width: int, runs: int, schedule: Schedule, round_number: int) -> Figures:
    seconds = []

    async def run(number: int) -> None:
        began = time.perf_counter()
        await system.connection.small_run(f"small-{round_number}-{number}", SMALL_RUN)
        seconds.append(time.perf_counter() - began)

    with Meter(system.server) as meter:
        await schedule(width, runs, run)
    return {**meter.figures("runs", runs), P99: latencies(seconds)[P99]}
