"""Replay of a stored run to one reader that touches every event."""

import time
from pathlib import Path
from typing import Any

from grpc import aio

from benchmarks import bare, workload
from benchmarks.report import Ratio
from lavant.server.clock import SystemClock
from lavant.server.model import RunKey
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.event_service_pb2 import StreamEventsRequest, StreamEventsResponse
from lavant.v1.run_pb2 import Run
from support.server import CHANNEL_OPTIONS, ServerProcess

STREAM = "/lavant.v1.EventService/StreamEvents"
BATCH = 500
ROUNDS = 3


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with the same frames sent by a bare server that has them in memory."""
    events = 50_000 if quick else 1_000_000
    await fill(folder / "lavant.db", events)
    frames_file = folder / "frames"
    server = ServerProcess(folder)
    await server.start()
    try:
        await _capture(server.target, frames_file)
        async with workload.bare_server("replay", frames_file) as bare_target:
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(await read(server.target, STREAM, events))
                theirs.append(await read(bare_target, bare.REPLAY, events))
    finally:
        await server.kill()
    return Ratio(
        name=f"replay of {events:,} events",
        unit="events/s",
        ours=events / min(ours),
        theirs=events / min(theirs),
        compared_with="the same frames from a bare grpc.aio server",
        at_least=0.8,
    )


async def fill(path: Path, events: int) -> None:
    engine = await SQLiteEngine.open(path, clock=SystemClock())
    key = RunKey("default", "replay")
    await engine.create_run(key, Run(run_id=key.run_id, name="replay"))
    for batch in workload.batches(key.run_id, events // BATCH, BATCH):
        await engine.append(key, batch)
    await engine.append(key, workload.finish(key.run_id, events + 1))
    await engine.close()


def _request(consumer_id: str = "bench") -> bytes:
    return StreamEventsRequest(run_id="replay", consumer_id=consumer_id).SerializeToString()


async def _capture(target: str, file: Path) -> None:
    async with aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        with file.open("wb") as frames:
            call: Any = channel.unary_stream(STREAM)
            async for frame in call(_request()):
                frames.write(len(frame).to_bytes(4, "little") + frame)


async def read(target: str, method: str, expected: int, consumer_id: str = "bench") -> float:
    """Read a run to its end, touching every event; return the seconds it took."""
    async with aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        started = time.perf_counter()
        seen = characters = 0
        call: Any = channel.unary_stream(method)
        async for data in call(_request(consumer_id)):
            for event in StreamEventsResponse.FromString(data).events.events:
                seen += 1
                characters += len(event.text_delta.text) + (event.sequence & 1)
        elapsed = time.perf_counter() - started
    assert seen == expected + 1, f"{seen} events came, not {expected + 1}"
    return elapsed
