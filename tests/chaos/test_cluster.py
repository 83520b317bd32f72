"""Replicas and NATS servers die one after the other, under producers and readers behind Envoy: nobody notices.

The whole of it: LAVANT_CHAOS_PRODUCERS=50 pytest tests/chaos/test_cluster.py --timeout 1200
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lavant.client import AsyncClient, ProducerOptions
from lavant.server.store.jetstream import Connection, Location
from support.cluster import Cluster, running_cluster

PRODUCERS = int(os.environ.get("LAVANT_CHAOS_PRODUCERS", "6"))
READERS_EACH = 2
PATIENCE = 90.0  # seconds: NATS takes up to ten to find a new leader, and this machine is busy
PACE = 0.05
Said = tuple[int, str]
Fault = Callable[[Cluster], Awaitable[None]]


@dataclass(slots=True)
class Story:
    """One run: what its producer said, how much of it was acknowledged, and what each reader got."""

    run_id: str
    said: list[str] = field(default_factory=list)
    acknowledged: int = 0
    got: list[list[Said]] = field(default_factory=lambda: [[] for _ in range(READERS_EACH)])

    async def write(self, client: AsyncClient, stop: asyncio.Event) -> None:
        """Say one thing after the other, each acknowledged, until stopped."""
        patient = ProducerOptions(block_timeout=PATIENCE, close_timeout=PATIENCE)
        async with client.runs.start("agent", run_id=self.run_id, on_error="raise", options=patient) as run:
            while not stop.is_set():
                self.said.append(f"{self.run_id}/{len(self.said)} ")
                await run.text(self.said[-1])
                await run.flush()
                self.acknowledged = len(self.said)
                await asyncio.sleep(PACE)

    async def read(self, client: AsyncClient, number: int) -> None:
        """Read to the run's end."""
        stream = client.runs.stream(
            self.run_id, consumer=f"reader-{number}", wait_for_run=True, reconnect_timeout=PATIENCE
        )
        async for event in stream:
            self.got[number].append((event.sequence, event.data.text if event.type == "text_delta" else ""))

    def read_by_all(self) -> int:
        """How much every reader has."""
        return min(sum(bool(text) for _, text in got) for got in self.got)


@asynccontextmanager
async def at_work(cluster: Cluster) -> AsyncIterator[list[Story]]:
    """Producers and readers; at the block's end all finish, and what they have is compared with both replicas' logs."""
    stories = [Story(f"run-{number}") for number in range(PRODUCERS)]
    stop = asyncio.Event()
    async with (
        AsyncClient(cluster.target) as writer,
        AsyncClient(cluster.target) as reader,
        asyncio.timeout(PATIENCE * 10),
        asyncio.TaskGroup() as tasks,
    ):
        for story in stories:
            tasks.create_task(story.write(writer, stop))
            for number in range(READERS_EACH):
                tasks.create_task(story.read(reader, number))
        await progress(stories)
        yield stories
        stop.set()
    for replica in cluster.replicas:
        async with AsyncClient(replica.target) as client:
            for story in stories:
                check(
                    story,
                    [
                        (event.sequence, event.data.text if event.type == "text_delta" else "")
                        async for event in client.runs.events(story.run_id)
                    ],
                )


def check(story: Story, log: list[Said]) -> None:
    """Compare what was said, stored and read."""
    assert [sequence for sequence, _ in log] == list(range(1, len(log) + 1))
    assert [text for _, text in log if text] == story.said
    for got in story.got:
        assert got == log
    assert story.acknowledged == len(story.said)


async def progress(stories: list[Story]) -> None:
    """Wait until every producer has said more, and every reader has all that was said by then."""
    wanted = [len(story.said) + 3 for story in stories]
    async with asyncio.timeout(PATIENCE):
        while not all(  # noqa: ASYNC110 - what happens elsewhere is seen by looking
            min(story.acknowledged, story.read_by_all()) >= count for story, count in zip(stories, wanted, strict=True)
        ):
            await asyncio.sleep(0.05)


def replica_killed(number: int) -> Fault:
    async def fault(cluster: Cluster) -> None:
        await cluster.replicas[number].restart()

    return fault


def replica_rolled(number: int) -> Fault:
    async def fault(cluster: Cluster) -> None:
        assert await cluster.replicas[number].terminate() == 0
        await cluster.replicas[number].start()

    return fault


def nats_killed(number: int) -> Fault:
    async def fault(cluster: Cluster) -> None:
        server = cluster.nats[number]
        await asyncio.to_thread(server.kill)
        server.start()
        await asyncio.to_thread(server.wait)

    return fault


async def leader_killed(cluster: Cluster) -> None:
    """Kill the server through which the writes of a part of the runs go."""
    location = Location.parse(cluster.store)
    connection = await Connection.open(location)
    found = await connection.api(f"STREAM.INFO.{location.log_streams[0]}")
    await connection.close()
    await nats_killed(int(found["cluster"]["leader"].removeprefix("nats-")))(cluster)


FAULTS = {
    "replica 0 killed": replica_killed(0),
    "replica 1 killed": replica_killed(1),
    "replica 0 rolled": replica_rolled(0),
    "replica 1 rolled": replica_rolled(1),
    "NATS 0 killed": nats_killed(0),
    "NATS 1 killed": nats_killed(1),
    "NATS 2 killed": nats_killed(2),
    "a leader of NATS killed": leader_killed,
}


@pytest.mark.timeout(PATIENCE * 10)
async def test_nobody_notices_who_dies(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster, at_work(cluster) as stories:
        for name, fault in FAULTS.items():
            print(name, flush=True)
            await fault(cluster)
            await cluster.envoy.healthy(len(cluster.replicas))
            await progress(stories)
