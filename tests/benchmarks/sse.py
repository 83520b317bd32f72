"""Server-sent events: how fast a stored run goes out, and what many readers of it cost."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from google.protobuf.json_format import MessageToJson

from benchmarks import replay, workload
from benchmarks.report import Ratio
from lavant.server.http.sse import EventTexts, SSEFrames, event_of_run
from lavant.server.model import RunKey
from lavant.server.streaming.signing import Signer
from lavant.server.streaming.tokens import ResumeTokens
from lavant.v1.event_service_pb2 import EventBatch, ProducerBatch
from support.server import ServerProcess, free_address

ROUNDS = 3
READERS = 200
PATH = "/api/v1/runs/replay/stream"


async def kept(folder: Path, *, quick: bool) -> Ratio:
    """A run that somebody has read before: the server has its texts."""
    return await _delivery(folder, 10_000, 1 if quick else ROUNDS)


async def first(folder: Path, *, quick: bool) -> Ratio:
    """A run that is more than the server keeps as texts: each read writes them anew."""
    return await _delivery(folder, 100_000, 1 if quick else ROUNDS)


async def _delivery(folder: Path, events: int, rounds: int) -> Ratio:
    """Compare with the same bytes from a bare starlette response, in pieces of the same size."""
    await replay.fill(folder / "lavant.db", events)
    address, server = free_address(), ServerProcess(folder)
    await server.start("--http", address)
    try:
        body = await _read(address, PATH)
        (folder / "body").write_bytes(body)
        async with _bare(folder / "body") as bare_address:
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(await _rate(address, PATH, len(body)))
                theirs.append(await _rate(bare_address, "/", len(body)))
    finally:
        await server.kill()
    return Ratio(
        name=f"server-sent events, a run of {events:,}",
        unit="MB/s",
        ours=max(ours),
        theirs=max(theirs),
        compared_with="a bare starlette response",
        at_least=0.5,
    )


async def fan_out(_: Path, *, quick: bool) -> Ratio:
    """Compare what writing live events, one a frame, costs for many readers with protobuf's own JSON, written once."""
    [batch] = workload.batches("r", 1, 200 if quick else 2_000)
    for number, event in enumerate(batch.events, 1):
        event.sequence = number
    frames = [EventBatch(events=[event]).SerializeToString() for event in batch.events]
    ours = min(_write(frames) for _ in range(ROUNDS))
    theirs = min(_write_once(batch) for _ in range(ROUNDS))
    return Ratio(
        name=f"writing live events as text for {READERS} readers",
        unit="µs/event",
        ours=ours / len(frames) * 1e6,
        theirs=theirs / len(frames) * 1e6,
        compared_with="protobuf's json_format, once",
        at_most=2,
    )


def _write(frames: list[bytes]) -> float:
    bookmark = ResumeTokens(Signer({"k": b"k" * 32}), "epoch").bookmark(RunKey("default", "run"), 0, 1)
    texts = EventTexts(event_of_run)
    streams = [SSEFrames(texts) for _ in range(READERS)]
    began = time.thread_time()
    for sequence, frame in enumerate(frames, 1):
        for stream in streams:
            stream.events_frame(bookmark, sequence, (frame,))
    return time.thread_time() - began


def _write_once(batch: ProducerBatch) -> float:
    began = time.thread_time()
    for event in batch.events:
        MessageToJson(event, preserving_proto_field_name=True, indent=None)
    return time.thread_time() - began


async def _rate(address: str, path: str, size: int) -> float:
    began = time.perf_counter()
    read = len(await _read(address, path))
    assert abs(read - size) < size / 100, f"{read} bytes came, not {size}"
    return read / (time.perf_counter() - began) / 1e6


async def _read(address: str, path: str) -> bytes:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    pieces = []
    while piece := await reader.read(1 << 20):
        pieces.append(piece)
    writer.close()
    return b"".join(pieces)


@asynccontextmanager
async def _bare(file: Path) -> AsyncIterator[str]:
    script = Path(__file__).with_name("bare_sse.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()
