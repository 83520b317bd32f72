"""What an event costs an agent: the time until `run.text` returns to it, while a server in another process stores."""

import asyncio
import statistics
import time
from pathlib import Path

from benchmarks.report import Ratio
from lavant.client import AsyncClient
from lavant.client._ids import new_id
from lavant.v1.event_pb2 import Event, TextDelta
from support.server import ServerProcess

LIMIT_MICROSECONDS = 10
TOKENS_A_TURN = 20  # what a model's answer brings at once, before the agent waits for more


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with building the same protobuf event alone; the aim stands for 10 µs on the machine at hand."""
    count = 5_000 if quick else 100_000
    server = ServerProcess(folder)
    await server.start()
    try:
        ours = await _said(server.target, count)
    finally:
        await server.kill()
    theirs = _built(count)
    return Ratio(
        name="producer, an event queued, p50",
        unit="µs",
        ours=ours * 1e6,
        theirs=theirs * 1e6,
        compared_with="building the protobuf event alone",
        at_most=LIMIT_MICROSECONDS / (theirs * 1e6),
    )


async def _said(target: str, count: int) -> float:
    times = []
    async with AsyncClient(target) as client, client.runs.start("bench") as run:
        for number in range(count):
            started = time.perf_counter()
            await run.text("token ")
            times.append(time.perf_counter() - started)
            if number % TOKENS_A_TURN == 0:
                await asyncio.sleep(0)
    return statistics.median(times)


def _built(count: int) -> float:
    message_id, producer_id = new_id(), new_id()
    times = []
    for number in range(count):
        started = time.perf_counter()
        event = Event(
            event_id=f"{producer_id}.{number}", text_delta=TextDelta(message_id=message_id, part_index=0, text="token ")
        )
        event.event_time.FromNanoseconds(time.time_ns())
        times.append(time.perf_counter() - started)
    return statistics.median(times)
