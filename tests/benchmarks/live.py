"""From publishing an event to its delivery: one producer, one reader, event by event."""

import statistics
import time
from pathlib import Path
from typing import Any

from grpc import aio

from benchmarks import bare, workload
from benchmarks.report import Ratio
from lavant.v1.event_service_pb2 import PublishEventsRequest, StreamEventsRequest, StreamEventsResponse
from lavant.v1.run_service_pb2 import CreateRunRequest
from support.server import CHANNEL_OPTIONS, ServerProcess, connected

ROUNDS = 3


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with a bare relay that writes each message to a file and syncs it before passing it on."""
    count = 200 if quick else 2_000
    server = ServerProcess(folder)
    await server.start()
    ours, theirs = [], []
    try:
        async with workload.bare_server("relay", folder / "relay.log") as bare_target:
            for number in range(ROUNDS):
                ours.append(await through_lavant(server.target, server.target, f"live-{number}", count))
                theirs.append(await _through_relay(bare_target, count))
    finally:
        await server.kill()
    return Ratio(
        name="live, publish to delivery, p50",
        unit="ms",
        ours=min(ours) * 1e3,
        theirs=min(theirs) * 1e3,
        compared_with="a bare grpc.aio relay with an fdatasync",
        at_most=2.5,
    )


async def through_lavant(producer_target: str, reader_target: str, run_id: str, count: int) -> float:
    """Publish event by event; return the median of the seconds until the reader has it."""
    requests = [PublishEventsRequest(batch=batch) for batch in workload.batches(run_id, count, 1)]
    async with connected(producer_target) as producer, connected(reader_target) as reader:
        await producer.runs.CreateRun(CreateRunRequest(run_id=run_id, name="live"))
        stream = reader.events.StreamEvents(StreamEventsRequest(run_id=run_id, consumer_id="bench"))
        call = producer.events.PublishEvents()
        for _ in range(2):
            await stream.read()  # opened, caught up
        latencies = []
        for request in requests:
            started = time.perf_counter()
            await call.write(request)
            frame = await stream.read()
            latencies.append(time.perf_counter() - started)
            assert isinstance(frame, StreamEventsResponse)
            assert len(frame.events.events) == 1, frame
            await call.read()
        stream.cancel()
        call.cancel()
    return statistics.median(latencies)


async def _through_relay(target: str, count: int) -> float:
    messages = [batch.SerializeToString() for batch in workload.batches("relay", count, 1)]
    async with (
        aio.insecure_channel(target, options=CHANNEL_OPTIONS) as producer,
        aio.insecure_channel(target, options=CHANNEL_OPTIONS) as reader,
    ):
        subscribe: Any = reader.unary_stream(bare.SUBSCRIBE)
        publish: Any = producer.stream_stream(bare.PUBLISH)
        stream = subscribe(b"")
        await stream.read()
        call = publish()
        latencies = []
        for message in messages:
            started = time.perf_counter()
            await call.write(message)
            await stream.read()
            latencies.append(time.perf_counter() - started)
            await call.read()
        stream.cancel()
        call.cancel()
    return statistics.median(latencies)
