"""Leases of consumers: their renewal and release, also with a store that does not answer, and their loss."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from lavant.server.clock import Clock
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.leases import LEASE_TTL
from lavant.server.store.port import Holder, Lease, Leases
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.leases import ConsumerLeases, HeldLease
from lavant.v1.run_pb2 import Run
from support.clock import ManualClock
from support.engines import refused
from support.events import a_run_of, batch_of, run_finished
from support.streaming import Written, delivered, options, streaming

KEY = RunKey("acme", "run")
PLACE = ConsumerKey(KEY, "ui")
RIVAL = Holder(session_id="two", attempt=1)


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

    async def acquire(self, key: ConsumerKey, holder: Holder, on_lost: Callable[[], None]) -> Lease:
        return await self.inner.acquire(key, holder, on_lost)

    async def acquire_and_release(self, key: ConsumerKey, holder: Holder) -> int:
        return await self.inner.acquire_and_release(key, holder)

    async def renew(self, lease: Lease) -> Lease | None:
        self.renewals.append(self.clock.monotonic())
        self._check()
        return await self.inner.renew(lease)

    async def renew_all(
        self, leases: Sequence[Lease], answered: Callable[[int, Lease | BaseException | None], None]
    ) -> None:
        for index, lease in enumerate(leases):
            answered(index, await self.renew(lease))

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


async def end(engine: SQLiteEngine) -> None:
    """End the run."""
    await engine.append(KEY, batch_of([run_finished()], first=3))


async def passes(clock: ManualClock, seconds: float) -> None:
    """Let time pass, and whoever it wakes do their work."""
    clock.advance(seconds)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_ends_well_before_anyone_can_acquire_its_lease(
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
    await shared.leases.close()


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
    await end(engine)
    await stream
    assert written.frames.kinds[-1] == "end"
    await shared.leases.close()


async def test_a_release_that_fails_does_not_keep_the_end_from_being_sent(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    leases.in_reach = False
    stream = asyncio.create_task(delivered(shared, options(KEY), written))
    await clock.awaited(5)
    await end(engine)
    await stream
    assert written.frames.kinds == ["opened", "events", "caught_up", "events", "end"]
    assert leases.releases == 1
    clock.advance(LEASE_TTL)
    await engine.leases.acquire(PLACE, RIVAL, lambda: None)
    await shared.leases.close()


@pytest.mark.parametrize("releasing", [True, False])
async def test_a_cancelled_stream_releases_its_lease(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock, releasing: bool
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    leases.answers.clear()
    stream = asyncio.create_task(delivered(shared, options(KEY), written))
    await clock.awaited(10)
    if releasing:
        await end(engine)
        await leases.asked_to_release.wait()
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    leases.answers.set()
    await shared.leases.close()
    assert leases.releases == 1
    await engine.leases.acquire(PLACE, RIVAL, lambda: None)


async def test_the_end_is_sent_after_the_lease_is_released(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock
) -> None:
    shared, written = streaming(engine, clock, leases=leases), Written()
    leases.answers.clear()
    stream = asyncio.create_task(delivered(shared, options(KEY), written))
    await clock.awaited(5)
    await end(engine)
    await leases.asked_to_release.wait()
    assert "end" not in written.frames.kinds
    leases.answers.set()
    await stream
    assert written.frames.kinds[-1] == "end"
    await shared.leases.close()


async def hold(held: HeldLease, work: Awaitable[object]) -> None:
    """Await something while a lease is held."""
    async with held:
        await work


async def test_a_lost_lease_cancels_its_block_wherever_it_is(engine: SQLiteEngine, clock: ManualClock) -> None:
    leases = ConsumerLeases(engine.leases, clock)
    held = await leases.acquire(PLACE, Holder(session_id="one", attempt=1))
    work = asyncio.get_running_loop().create_future()
    holding = asyncio.create_task(hold(held, work))
    await passes(clock, 0)
    newer = await leases.acquire(PLACE, Holder(session_id="two", attempt=1, take_over=True))
    with refused("STREAM_DISPLACED"):
        await holding
    assert work.cancelled()
    assert (held.is_usable, newer.is_usable, len(leases)) == (False, True, 1)
    await leases.release(newer)
    await leases.close()


async def test_a_call_that_is_cancelled_as_its_lease_is_lost_stays_cancelled(
    engine: SQLiteEngine, clock: ManualClock
) -> None:
    leases = ConsumerLeases(engine.leases, clock)
    held = await leases.acquire(PLACE, Holder(session_id="one", attempt=1))
    holding = asyncio.create_task(hold(held, asyncio.get_running_loop().create_future()))
    await passes(clock, 0)
    held.lose()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert len(leases) == 0
    await leases.close()


async def test_a_second_cancellation_does_not_keep_a_lease_from_its_release(
    engine: SQLiteEngine, leases: RemoteLeases, clock: ManualClock
) -> None:
    held = await (own := ConsumerLeases(leases, clock)).acquire(PLACE, Holder(session_id="one", attempt=1))
    leases.answers.clear()
    holding = asyncio.create_task(hold(held, asyncio.sleep(0)))
    await leases.asked_to_release.wait()
    holding.cancel()
    await passes(clock, 0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    leases.answers.set()
    await own.close()
    await engine.leases.acquire(PLACE, RIVAL, lambda: None)


async def test_a_lease_lost_before_its_block_is_found_by_the_first_check(
    engine: SQLiteEngine, clock: ManualClock
) -> None:
    leases = ConsumerLeases(engine.leases, clock)
    held = await leases.acquire(PLACE, Holder(session_id="one", attempt=1))
    held.lose()
    with refused("STREAM_DISPLACED"):
        async with held:
            held.check()
    assert len(leases) == 0
    await leases.close()
