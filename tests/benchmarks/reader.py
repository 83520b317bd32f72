"""What the client adds to reading: a stored run, iterated over event by event."""

import time
from pathlib import Path

from benchmarks import replay
from benchmarks.report import Ratio
from lavant.client import AsyncClient
from lavant.v1.event_service_pb2 import StreamEventsRequest
from support.server import ServerProcess, connected

ROUNDS = 3


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with the bare generated stub, whose reader looks into each event of each frame."""
    events = 20_000 if quick else 200_000
    await replay.fill(folder / "lavant.db", events)
    server = ServerProcess(folder)
    await server.start()
    ours, theirs = [], []
    try:
        for _ in range(ROUNDS):
            ours.append(await _by_client(server.target, events))
            theirs.append(await _by_stub(server.target, events))
    finally:
        await server.kill()
    return Ratio(
        name=f"client reading {events:,} events",
        unit="events/s",
        ours=events / min(ours),
        theirs=events / min(theirs),
        compared_with="the bare generated stub",
        at_least=0.6,
    )


async def _by_client(target: str, expected: int) -> float:
    async with AsyncClient(target) as client:
        started = time.perf_counter()
        deltas = 0
        async for event in client.runs.stream("replay"):
            deltas += event.type == "text_delta"
        elapsed = time.perf_counter() - started
    assert deltas == expected - 2, f"{deltas} deltas came, not {expected - 2}"
    return elapsed


async def _by_stub(target: str, expected: int) -> float:
    async with connected(target) as stubs:
        started = time.perf_counter()
        deltas = 0
        async for frame in stubs.events.StreamEvents(StreamEventsRequest(run_id="replay", consumer_id="bench")):
            for event in frame.events.events:
                deltas += event.WhichOneof("payload") == "text_delta"
        elapsed = time.perf_counter() - started
    assert deltas == expected - 2, f"{deltas} deltas came, not {expected - 2}"
    return elapsed
