"""1,000 calls at once on one client: how many are refused, and how long the slowest wait."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from benchmarks.events import create_request
from benchmarks.kit.process import Process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P50, P99, Bench, Figures, Meter, latencies
from benchmarks.peers import bare_server
from benchmarks.peers.bare import Bare
from benchmarks.peers.lavant import serve
from lavant.client import AsyncClient
from support.server import CHANNEL_OPTIONS, connected

REFUSED, MEAN = "refused", "mean ms"
Call = Callable[[str], Awaitable[object]]


async def run(bench: Bench) -> list[Table]:
    """Measure a burst by the client, which repeats what is refused, and by stubs without retries."""
    calls = bench.size(1_000, quick=300)
    async with (
        serve(bench.subfolder("lavant")) as server,
        Bare.serve(bench.subfolder("bare")) as bare,
        AsyncClient(server.address) as client,
        connected(server.address) as stubs,
        aio.insecure_channel(bare.address, options=CHANNEL_OPTIONS) as channel,
    ):
        create: Any = channel.unary_unary(bare_server.CREATE)
        measured = await bench.interleaved(
            {
                "lavant": lambda _: _burst(server, calls, lambda _: client.runs.create("burst")),
                "lavant stubs": lambda _: _burst(server, calls, lambda run: stubs.runs.CreateRun(create_request(run))),
                "bare": lambda _: _burst(bare, calls, lambda run: create(run.encode())),
            }
        )
    return [
        Table(
            name="bursts",
            title=f"{calls:,} runs created at once on one connection",
            measured=measured,
            aims=[
                Aim(unit=REFUSED, system="lavant", at_most=0),
                Aim(unit=REFUSED, system="lavant stubs", at_most=0),
                Aim(unit=P99, beside="bare", of=MEAN, at_most=2),
            ],
        )
    ]


async def _burst(server: Process, calls: int, call: Call) -> Figures:
    seconds, refused = [], 0
    prefix = time.time_ns()

    async def one(number: int) -> None:
        nonlocal refused
        began = time.perf_counter()
        try:
            await call(f"burst-{prefix}-{number}")
        except aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            refused += 1
        seconds.append(time.perf_counter() - began)

    with Meter(server) as meter:
        await asyncio.gather(*(one(number) for number in range(calls)))
    found = latencies(seconds)
    waits = {P50: found[P50], P99: found[P99], MEAN: statistics.mean(seconds) * 1e3}
    return {**meter.figures("calls", calls), **waits, REFUSED: refused}
