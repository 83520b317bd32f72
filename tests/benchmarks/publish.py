"""Durable publishing by one client in batches of 100 events."""

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.report import Ratio
from lavant.server.store.sqlite.schema import connect
from lavant.v1.event_service_pb2 import PublishEventsRequest, PublishEventsResponse
from lavant.v1.run_service_pb2 import CreateRunRequest
from support.server import ServerProcess, connected

SIZE = 100
PUBLISH = "/lavant.v1.EventService/PublishEvents"
IN_FLIGHT = 256
ROUNDS = 5


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with a loop that commits the same blobs to SQLite, one by one, with the same settings."""
    count = 200 if quick else 2_000
    server = ServerProcess(folder)
    await server.start()
    ours, theirs = [], []
    try:
        for number in range(ROUNDS):
            ours.append(await publish(server.target, f"publish-{number}", count))
            theirs.append(_write(_stored_blobs(folder / "lavant.db")[:count], folder / f"bare-{number}.db"))
    finally:
        await server.kill()
    return Ratio(
        name=f"durable publish in batches of {SIZE}",
        unit="events/s",
        ours=count * SIZE / min(ours),
        theirs=count * SIZE / min(theirs),
        compared_with="a bare loop committing the same blobs to SQLite",
        at_least=0.5,
    )


async def publish(target: str, run_id: str, count: int) -> float:
    """Publish so many batches, some of them in flight at once; return the seconds until all are durable.

    Requests are serialized before, as the blobs and messages are that this is compared with.
    """
    requests = [
        PublishEventsRequest(batch=batch).SerializeToString() for batch in workload.batches(run_id, count, SIZE)
    ]
    async with connected(target) as stubs:
        await stubs.runs.CreateRun(CreateRunRequest(run_id=run_id, name="publish"))
        call: Any = stubs.channel.stream_stream(PUBLISH)()
        window = asyncio.Semaphore(IN_FLIGHT)

        async def receive() -> None:
            for _ in requests:
                response = PublishEventsResponse.FromString(await call.read())
                assert response.HasField("receipt"), response
                window.release()

        started = time.perf_counter()
        receiving = asyncio.create_task(receive())
        for request in requests:
            await window.acquire()
            await call.write(request)
        await receiving
        elapsed = time.perf_counter() - started
        await call.done_writing()
    return elapsed


def _stored_blobs(path: Path) -> list[bytes]:
    connection = connect(path, read_only=True)
    blobs = [bytes(row[0]) for row in connection.execute("SELECT events FROM batches")]
    connection.close()
    return blobs


def _write(blobs: list[bytes], path: Path) -> float:
    connection = connect(path)
    connection.execute("CREATE TABLE batches (id INTEGER PRIMARY KEY, events BLOB)")
    started = time.perf_counter()
    for number, blob in enumerate(blobs):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO batches VALUES (?, ?)", (number, blob))
        connection.execute("COMMIT")
    elapsed = time.perf_counter() - started
    connection.close()
    return elapsed
