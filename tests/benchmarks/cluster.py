"""Replicas on a cluster of three NATS servers, beside nats-py on the same cluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import live, publish, replay
from benchmarks.events import TEXT
from benchmarks.kit.process import Process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P50, SERVER_CPU, Bench, Figures, Meter
from benchmarks.peers.base import Peer, at_once
from benchmarks.peers.lavant import Lavant, LavantClient, serve
from benchmarks.peers.nats import Nats
from benchmarks.peers.registry import Running
from support.nats import nats_cluster

READERS = 4


@dataclass(frozen=True, kw_only=True)
class Site:
    """Two replicas, and the addresses of the cluster that they and nats-py use."""

    replicas: list[Process]
    cluster: str


@asynccontextmanager
async def _site(bench: Bench) -> AsyncIterator[Site]:
    with nats_cluster(bench.folder) as servers:
        cluster = ",".join(server.address for server in servers)
        store = f"nats://{cluster}"
        async with (
            serve(bench.subfolder("replica-1"), store=store) as first,
            serve(bench.subfolder("replica-2"), store=store) as second,
        ):
            yield Site(replicas=[first, second], cluster=cluster)


async def run(bench: Bench) -> list[Table]:
    """Compare with nats-py, which publishes event by event and asynchronously; it has no atomic batches.

    The live row reads from the other replica; the last row compares readers of two replicas with readers of one.
    """
    async with _site(bench) as site:
        return [
            await _publishing(bench, site),
            await _replaying(bench, site),
            await _latency(bench, site),
            await _cpu(bench, site),
        ]


async def _publishing(bench: Bench, site: Site) -> Table:
    batches = bench.size(300, quick=30)
    async with _systems(site, Lavant, width=publish.IN_FLIGHT) as systems:
        measured = await bench.interleaved(
            {name: partial(publish.publish, system, publish.IN_FLIGHT, batches) for name, system in systems.items()}
        )
    return Table(
        name="cluster-publish",
        title=f"publishing to three NATS servers in batches of {publish.SIZE}",
        measured=measured,
        aims=[Aim(unit="events/s", beside="nats-py", at_least=10)],
    )


async def _replaying(bench: Bench, site: Site) -> Table:
    events = _replayed(bench)
    async with _systems(site, Lavant) as systems:
        for system in systems.values():
            await replay.fill(system.connection, replay.RUN, events, texts=publish.SIZE)
        measured = await bench.interleaved({name: partial(_read, system, events) for name, system in systems.items()})
    return Table(
        name="cluster-replay",
        title=f"replay of {events:,} events from three NATS servers",
        measured=measured,
        aims=[Aim(unit="events/s", beside="nats-py", at_least=10)],
    )


async def _latency(bench: Bench, site: Site) -> Table:
    addresses = {"lavant": site.replicas[1].address, "nats-py": site.cluster}
    async with _systems(site, LavantClient) as systems:
        named = {"lavant": ("lavant", systems["lavant"]), "nats-py": ("nats", systems["nats-py"])}
        measured = await live.deliveries(bench, named, addresses)
    return Table(
        name="cluster-live",
        title=f"live, {live.RATE}/s, from one replica to the other",
        measured=measured,
        aims=[Aim(unit=P50, beside="nats-py", at_most=2.5)],
    )


async def _cpu(bench: Bench, site: Site) -> Table:
    events = _replayed(bench)
    async with Lavant.connect(site.replicas[0].address) as first, Lavant.connect(site.replicas[1].address) as second:
        measured = await bench.interleaved(
            {
                "lavant": partial(_read_at_once, site, [first, second], events),
                "one replica": partial(_read_at_once, site, [first], events),
            }
        )
    return Table(
        name="cluster-cpu",
        title=f"{READERS} readers of {events:,} events, on two replicas",
        measured=measured,
        recorded=[SERVER_CPU],
        baseline="one replica",
    )


def _replayed(bench: Bench) -> int:
    return bench.size(50_000, quick=5_000)


@asynccontextmanager
async def _systems(site: Site, peer: type[Peer], *, width: int = 1) -> AsyncIterator[dict[str, Running]]:
    replica = site.replicas[0]
    async with peer.connect(replica.address, width=width) as ours, Nats.connect(site.cluster, replicas=3) as theirs:
        yield {
            "lavant": Running(peer=peer, server=replica, connection=ours),
            "nats-py": Running(peer=Nats, server=None, connection=theirs),
        }


async def _read(system: Running, events: int, _: int) -> Figures:
    with Meter(system.server) as meter:
        assert await system.connection.read(replay.RUN) == events * len(TEXT)
    return meter.figures("events", events)


async def _read_at_once(site: Site, connections: list[Lavant], events: int, _: int) -> Figures:
    with Meter(*site.replicas) as meter:
        await at_once(READERS, READERS, lambda number: connections[number % len(connections)].read(replay.RUN))
    return meter.figures("events", READERS * events)
