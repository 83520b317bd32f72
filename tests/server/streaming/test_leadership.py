"""One of the servers that share a store does what is done for all, and another one after it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lavant.server.store.leases import LEASE_TTL
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.leadership import Leadership
from lavant.server.streaming.leases import ConsumerLeases
from support.clock import ManualClock


@pytest.fixture
async def leases(tmp_path: Path, clock: ManualClock) -> AsyncIterator[tuple[ConsumerLeases, ConsumerLeases]]:
    """The leases that two servers hold in one store."""
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    here, there = ConsumerLeases(engine.leases, clock), ConsumerLeases(engine.leases, clock)
    yield here, there
    await here.close()
    await there.close()
    await engine.close()


async def test_the_first_server_leads_until_it_releases_the_lease(
    leases: tuple[ConsumerLeases, ConsumerLeases],
) -> None:
    here, there = (Leadership(one, "default/rules", "lavant.census") for one in leases)
    other = Leadership(leases[1], "default/alerts", "lavant.webhooks")
    assert [await one.acquire() for one in (here, there, here, other)] == [True, False, True, True]
    await here.release()
    await here.release()
    assert [await one.acquire() for one in (there, here)] == [True, False]


async def test_a_lease_that_expired_is_acquired_again_by_either_server(
    leases: tuple[ConsumerLeases, ConsumerLeases], clock: ManualClock
) -> None:
    here, there = (Leadership(one, "default/rules", "lavant.census") for one in leases)
    assert await here.acquire()
    await leases[0].close()  # stops renewals
    clock.advance(LEASE_TTL)
    assert [await one.acquire() for one in (there, here)] == [True, False]
    await there.release()
    assert await here.acquire()
