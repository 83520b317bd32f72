"""Waking of readers: so many in an iteration of the event loop, those of tenants in turn."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from lavant.server.model import RunKey
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.wakes import WakeUps
from lavant.server.turns import Origin
from support.calls import until
from support.clock import ManualClock
from support.engines import started
from support.events import batch_of, text_delta


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SQLiteEngine]:
    opened = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    yield opened
    await opened.close()


async def iterations(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_few_readers_are_woken_at_once() -> None:
    wake_ups, woken = WakeUps(), list[int]()
    for number in range(32):
        wake_ups.wake(Origin("t"), partial(woken.append, number))
    assert woken == list(range(32))


async def test_many_readers_are_woken_in_several_iterations_and_each_once() -> None:
    wake_ups, woken = WakeUps(), list[int]()
    readers = [partial(woken.append, number) for number in range(100)]
    for reader in (*readers, *readers[40:]):
        wake_ups.wake(Origin("t"), reader)
    counts = [len(woken)]
    while counts[-1] < 100:
        await asyncio.sleep(0)
        counts.append(len(woken))
    assert max(later - earlier for earlier, later in pairwise(counts)) == 32
    await iterations(3)
    assert woken == list(range(100))


async def test_a_run_with_many_readers_does_not_delay_anothers_reader() -> None:
    wake_ups, woken = WakeUps(), list[str]()
    for _ in range(1_000):
        wake_ups.wake(Origin("crowd", "run"), partial(woken.append, "crowd"))
    wake_ups.wake(Origin("crowd", "other run"), partial(woken.append, "neighbour"))
    wake_ups.wake(Origin("one", "run"), partial(woken.append, "one"))
    await iterations(1)
    assert {"one", "neighbour"} < set(woken)
    assert len(woken) <= 64
    await until(lambda: len(woken) == 1_002)


async def test_the_hub_wakes_readers_of_tenants_in_turn(engine: SQLiteEngine) -> None:
    hub, woken = Hub(engine, tail_bytes=1 << 20), list[str]()
    crowd, one = [await started(engine, RunKey(tenant, "run")) for tenant in ("crowd", "one")]
    for _ in range(200):
        hub.join(crowd, partial(woken.append, "crowd"))
    hub.join(one, partial(woken.append, "one"))
    await until(lambda: len(woken) >= 201)  # the snapshots
    woken.clear()
    appended = [engine.append(key, batch_of([text_delta()], first=3)) for key in (crowd, one)]
    await asyncio.gather(*appended)
    await until(lambda: len(woken) == 201)
    assert woken.index("one") <= 64
