"""Replicas on a cluster of three NATS servers, compared with nats-py on the same cluster in the same run."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
import psutil
from nats.js import JetStreamContext

from benchmarks import live, publish, replay, workload
from benchmarks.report import Ratio
from lavant.v1.event_service_pb2 import AppendEventsRequest
from lavant.v1.run_service_pb2 import CreateRunRequest
from support.nats import nats_cluster
from support.server import ServerProcess, connected

ROUNDS = 3
READERS = 4
_PENDING = 1_000  # messages of nats-py's that wait for their acknowledgement; more is not faster


@dataclass(frozen=True, kw_only=True)
class Site:
    """Replicas, and nats-py with a stream of its own beside theirs."""

    replicas: list[ServerProcess]
    bare: JetStreamContext

    @property
    def targets(self) -> list[str]:
        """Where the replicas serve."""
        return [replica.target for replica in self.replicas]


@asynccontextmanager
async def _site(folder: Path) -> AsyncIterator[Site]:
    with nats_cluster(folder) as servers:
        addresses = [server.address for server in servers]
        replicas = [ServerProcess(folder, store=f"nats://{','.join(addresses)}") for _ in range(2)]
        client = await nats.connect([f"nats://{address}" for address in addresses])
        try:
            for replica in replicas:
                await replica.start()
            bare = client.jetstream(publish_async_max_pending=_PENDING)
            await bare.add_stream(name="BARE", subjects=["bare.*"], num_replicas=3)
            yield Site(replicas=replicas, bare=bare)
        finally:
            await client.close()
            for replica in replicas:
                await replica.kill()


async def publishing(folder: Path, *, quick: bool) -> Ratio:
    """Batches of 100 events through lavant, the same events one by one and asynchronously through nats-py."""
    count = 50 if quick else 500
    async with _site(folder) as site:
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(await publish.publish(site.targets[0], f"run-{number}", count))
            theirs.append(await _publish_bare(site.bare, f"bare.{number}", count))
    return Ratio(
        name=f"publish to three NATS servers in batches of {publish.SIZE}",
        unit="events/s",
        ours=count * publish.SIZE / min(ours),
        theirs=count * publish.SIZE / min(theirs),
        compared_with="nats-py, event by event, asynchronously",
        at_least=10,
    )


async def replaying(folder: Path, *, quick: bool) -> Ratio:
    """A stored run through lavant, the same events as single messages through nats-py's ordered consumer."""
    count = 50 if quick else 1_000
    events = count * publish.SIZE
    async with _site(folder) as site:
        await _store(site, count)
        await _publish_bare(site.bare, "bare.replay", count)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(await replay.read(site.targets[1], replay.STREAM, events))
            theirs.append(await _read_bare(site.bare, "bare.replay", events))
    return Ratio(
        name=f"replay of {events:,} events from three NATS servers",
        unit="events/s",
        ours=events / min(ours),
        theirs=events / min(theirs),
        compared_with="nats-py's ordered consumer",
        at_least=10,
    )


async def latency(folder: Path, *, quick: bool) -> Ratio:
    """From publishing through one replica to delivery by the other; nats-py's from publish to push delivery."""
    count = 100 if quick else 1_000
    async with _site(folder) as site:
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(await live.through_lavant(site.targets[0], site.targets[1], f"run-{number}", count))
            theirs.append(await _live_bare(site.bare, f"bare.{number}", count))
    return Ratio(
        name="live from one replica to the other, p50",
        unit="ms",
        ours=min(ours) * 1e3,
        theirs=min(theirs) * 1e3,
        compared_with="nats-py, publish to push delivery",
        at_most=2.5,
    )


async def cpu(folder: Path, *, quick: bool) -> Ratio:
    """What delivering a million events costs when readers are spread over two replicas, and when one has them all."""
    count = 50 if quick else 1_000
    events = count * publish.SIZE
    async with _site(folder) as site:
        await _store(site, count)
        spent = [
            await _cpu_seconds(site.replicas, [targets[number % len(targets)] for number in range(READERS)], events)
            for targets in (site.targets, site.targets[:1])
        ]
    both, one = (seconds / (READERS * events) * 1e6 for seconds in spent)
    return Ratio(
        name="CPU of two replicas per million events delivered",
        unit="s",
        ours=both,
        theirs=one,
        compared_with="one replica",
    )


async def _store(site: Site, count: int) -> None:
    async with connected(site.targets[0]) as stubs:
        await stubs.runs.CreateRun(CreateRunRequest(run_id="replay", name="replay"))
        for batch in (
            *workload.batches("replay", count, publish.SIZE),
            workload.finish("replay", count * publish.SIZE + 1),
        ):
            await stubs.events.AppendEvents(AppendEventsRequest(batch=batch))


async def _cpu_seconds(replicas: list[ServerProcess], targets: list[str], events: int) -> float:
    processes = [psutil.Process(replica.pid) for replica in replicas]

    def spent() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before = spent()
    await asyncio.gather(
        *(replay.read(target, replay.STREAM, events, f"reader-{number}") for number, target in enumerate(targets))
    )
    return spent() - before


async def _publish_bare(bare: JetStreamContext, subject: str, count: int) -> float:
    messages = [
        event.SerializeToString() for batch in workload.batches("bare", count, publish.SIZE) for event in batch.events
    ]
    started = time.perf_counter()
    for message in messages:
        await bare.publish_async(subject, message, wait_stall=30)
    await bare.publish_async_completed()
    return time.perf_counter() - started


async def _read_bare(bare: JetStreamContext, subject: str, events: int) -> float:
    started = time.perf_counter()
    subscription = await bare.subscribe(subject, ordered_consumer=True)
    seen = 0
    async for message in subscription.messages:
        seen += bool(message.data)
        if seen == events:
            break
    elapsed = time.perf_counter() - started
    await subscription.unsubscribe()
    return elapsed


async def _live_bare(bare: JetStreamContext, subject: str, count: int) -> float:
    subscription = await bare.subscribe(subject, ordered_consumer=True)
    messages = [batch.SerializeToString() for batch in workload.batches("bare", count, 1)]
    latencies = []
    for message in messages:
        started = time.perf_counter()
        publishing = asyncio.ensure_future(bare.publish(subject, message))
        await subscription.next_msg(timeout=10)
        latencies.append(time.perf_counter() - started)
        await publishing
    await subscription.unsubscribe()
    return statistics.median(latencies)
