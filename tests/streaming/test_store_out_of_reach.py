"""A stream whose hold on its place cannot be renewed or given back, as with a store that does not answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from lavant.server.clock import Clock
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.leases import LEASE_TTL
from lavant.server.store.port import Claim, Lease, Leases
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.run_pb2 import Run
from support.clock import ManualClock
from support.engines import refused
from support.events import a_run_of, batch_of, run_finished
from support.streaming import Written, delivered, options, streaming

KEY = RunKey("acme", "run")
PLACE = ConsumerKey(KEY, "ui")
RIVAL = Claim(session_id="two", attempt=1)


@dataclass
class RemoteLeases:
    """Leases that can be cut off from those who hold them, and slowed down."""

    inner: Leases
    clock: Clock
    in_reach: bool = True
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    asked_to_release: asyncio.Event = field(default_factory=asyncio.Event)
    releases: int = 0
    renewals: list[float] = field(default_factory=list)

    async def acquire(self, key: ConsumerKey, claim: Claim, on_lost: Callable[[], None]) -> Lease:
        return await self.inner.acquire(key, claim, on_lost)

    async def renew(self, lease: Lease) -> Lease | None:
        self.renewals.append(self.clock.monotonic())
        self._check()
        return await self.inner.renew(lease)

    async def release(self, lease: Lease) -> None:
        self.releases += 1
        self.asked_to_release.set()
        self._check()
        await self.answers.wait()
        await self.inner.release(lease)

    def _check(self) -> None:
        if not self.in_reach:
            raise OSError("no route to the store")


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SQLiteEngine]:
    """A store with an unfinished run of two events."""
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    await engine.create_run(KEY, Run(name="weather"))
    await engine.append(KEY, batch_of(a_run_of(2, finished=False)))
    yield engine
    await engine.close()


@pytest.fixture
def leases(engine: SQLiteEngine, clock: ManualClock) -> RemoteLeases:
    """That store's leases, in reach and answering."""
    remote = RemoteLeases(engine.leases, clock)
    remote.answers.set()
    return remote


async def passes(clock: ManualClock, seconds: float) -> None:
    """Let time pass, and whoever it wakes do their work."""
    clock.advance(seconds)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_ends_well_before_anybody_else_can_have_its_place(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    stream = asyncio.create_task(delivered(shared, options(KEY, heartbeat_interval=4.25), written))
    await clock.awaited(4.25)
    leases.in_reach = False
    began = clock.monotonic()
    while not stream.done():
        await passes(clock, 0.25)
    with refused("UNAVAILABLE") as caught:
        await stream
    assert caught.value.retry_after is not None
    assert clock.monotonic() - began == LEASE_TTL * 2 / 3
    with refused("CONSUMER_BUSY"):
        await engine.leases.acquire(PLACE, RIVAL, lambda: None)
    clock.advance(LEASE_TTL / 3)
    await engine.leases.acquire(PLACE, RIVAL, lambda: None)
    assert written.frames.kinds == ["opened", "events", "caught_up", "heartbeat", "heartbeat"]
    await shared.places.close()


async def test_a_stream_outlives_renewals_that_fail_for_a_while(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    stream = asyncio.create_task(delivered(shared, options(KEY), written))
    await clock.awaited(10)
    for quarter in range(4 * 60):
        leases.in_reach = not 18 <= quarter % 40 < 34  # away for 4 s out of 10
        await passes(clock, 0.25)
        assert not stream.done()
    assert any(later - earlier == 1 for earlier, later in pairwise(leases.renewals))
    leases.in_reach = True
    await engine.append(KEY, batch_of([run_finished()], first=3))
    await stream
    assert written.frames.kinds[-1] == "end"
    await shared.places.close()


async def test_a_place_that_cannot_be_given_back_does_not_spoil_the_end(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    leases.in_reach = False
    await delivered(shared, options(KEY, to_head=True), written)
    assert written.frames.kinds == ["opened", "events", "caught_up", "end"]
    assert leases.releases == 1
    clock.advance(LEASE_TTL)
    await engine.leases.acquire(PLACE, RIVAL, lambda: None)
    await shared.places.close()


@pytest.mark.parametrize("giving_back", [True, False])
async def test_a_place_is_given_back_by_a_stream_that_is_cancelled(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock, giving_back: bool
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    leases.answers.clear()
    stream = asyncio.create_task(delivered(shared, options(KEY, to_head=giving_back), written))
    await clock.awaited(5)
    await (leases.asked_to_release.wait() if giving_back else clock.awaited(10))
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    leases.answers.set()
    await shared.places.close()
    assert leases.releases == 1
    await engine.leases.acquire(PLACE, RIVAL, lambda: None)


async def test_the_end_goes_out_after_the_place_is_free(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    leases.answers.clear()
    stream = asyncio.create_task(delivered(shared, options(KEY, to_head=True), written))
    await clock.awaited(5)
    await leases.asked_to_release.wait()
    assert "end" not in written.frames.kinds
    leases.answers.set()
    await stream
    assert written.frames.kinds[-1] == "end"
    await shared.places.close()
