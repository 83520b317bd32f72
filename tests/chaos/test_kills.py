"""The server is killed with SIGKILL, where it hurts and at random: nothing is lost, repeated or invented.

Long runs: LAVANT_CHAOS_CYCLES=200 LAVANT_CHAOS_SEED=7 pytest tests/chaos --timeout 0
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from chaos.checker import stored_events, violations
from chaos.history import History, Seen
from chaos.workload import RUN, Clients
from support.calls import create, listed
from support.server import ServerProcess, connected

CYCLES = int(os.environ.get("LAVANT_CHAOS_CYCLES", "3"))
SEED = int(os.environ.get("LAVANT_CHAOS_SEED", "0")) or Random().randrange(1, 2**31)
MOST_BETWEEN_KILLS = 150


@asynccontextmanager
async def at_work(folder: Path, history: History, seed: int, size: int) -> AsyncIterator[tuple[ServerProcess, Clients]]:
    """A server with a producer and a reader at work; at the block's end they finish, and all is compared."""
    process = ServerProcess(folder)
    await process.start()
    clients = Clients(process, history, Random(seed), size)
    try:
        async with connected(process.target) as stubs:
            await create(stubs, RUN)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(clients.publish())
            tasks.create_task(clients.read())
            clients.up.set()
            yield process, clients
        async with connected(process.target) as stubs:
            found = [Seen(event.sequence, event.event_id) for event in await listed(stubs, RUN)]
        assert await process.terminate() == 0
    finally:
        await process.kill()
    assert violations(history, found, stored_events(folder / "lavant.db", RUN)) == []
    assert len(history.acknowledged) == len(found) == size


@pytest.mark.parametrize("place", ["before_commit", "after_commit", "after_send"])
@pytest.mark.parametrize("hit", [1, 5])
async def test_killed_at_a_failpoint(tmp_path: Path, place: str, hit: int) -> None:
    history = History()
    async with at_work(tmp_path, history, seed=hit, size=1_500) as (process, clients):
        await clients.progress(100)
        for _ in range(2):
            clients.up.clear()
            process.environment = {"LAVANT_FAILPOINT": f"{place}:{hit}"}
            await process.restart()
            clients.up.set()
            assert await process.died() == -signal.SIGKILL, "the failpoint was not reached"
            clients.up.clear()
            history.faults += 1
            process.environment = {}
            await process.start()
            clients.up.set()
            await clients.progress(clients.acknowledged + 100)
    assert history.faults == 2


@pytest.mark.timeout(60 + 5 * CYCLES)
async def test_killed_at_random(tmp_path: Path) -> None:
    print(f"LAVANT_CHAOS_SEED={SEED} LAVANT_CHAOS_CYCLES={CYCLES}")
    random = Random(SEED)
    history = History()
    size = (CYCLES + 1) * 2 * MOST_BETWEEN_KILLS
    async with at_work(tmp_path, history, SEED, size) as (process, clients):
        for _ in range(CYCLES):
            await clients.progress(clients.acknowledged + random.randrange(MOST_BETWEEN_KILLS))
            clients.up.clear()
            history.faults += clients.acknowledged < size
            await process.restart()
            clients.up.set()
    assert history.faults == CYCLES, "some kills found nobody at work"
