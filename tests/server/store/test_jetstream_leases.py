"""One stream per consumer, over all replicas of a store."""

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from lavant.server.clock import SystemClock
from lavant.server.model import ConsumerKey
from lavant.server.store.jetstream import JetStreamEngine, Location
from lavant.server.store.jetstream.leases import JetStreamLeases
from lavant.server.store.ownership import Owner
from lavant.server.store.port import Holder, Lease
from support.calls import until
from support.engines import KEY, refused

PLACE = ConsumerKey(KEY, "ui")
RACES = int(os.environ.get("LAVANT_LEASE_RACES", "200"))


def holder(session: str = "one", attempt: int = 1, *, take_over: bool = False) -> Holder:
    return Holder(session_id=session, attempt=attempt, take_over=take_over)


def nobody() -> None:
    """Nobody minds."""


async def test_the_owner_of_a_lease_is_known_to_all_replicas(replicas: Sequence[JetStreamEngine]) -> None:
    one, other = (replica.leases for replica in replicas)
    alice, bob = Owner("alice"), Owner("bob")
    first = await one.acquire(PLACE, Holder(session_id="one", attempt=1, owner=alice), nobody)
    with refused("CONSUMER_BUSY"):
        await other.acquire(PLACE, Holder(session_id="one", attempt=2, owner=bob), nobody)
    with refused("PERMISSION_DENIED"):
        await other.acquire(PLACE, Holder(session_id="two", attempt=1, take_over=True, owner=bob), nobody)
    renewed = await other.acquire(PLACE, Holder(session_id="one", attempt=2, owner=alice), nobody)
    assert renewed.fence > first.fence


async def test_each_race_for_a_place_has_one_winner(replicas: Sequence[JetStreamEngine]) -> None:
    for race in range(RACES):
        place = ConsumerKey(KEY, f"place-{race}")
        rivals = [replicas[index % 2].leases.acquire(place, holder(f"session-{index}"), nobody) for index in range(3)]
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
        kept = [await replica.leases.renew(winner) for replica in replicas]
        assert [lease is not None for lease in kept].index(True) == outcomes.index(winner) % 2
        assert kept.count(None) == 1


async def test_each_race_of_takers_over_leaves_one_holder_with_the_highest_fence(
    replicas: Sequence[JetStreamEngine],
) -> None:
    for race in range(RACES // 4):
        await race_of_takers_over(replicas, ConsumerKey(KEY, f"place-{race}"))


async def race_of_takers_over(replicas: Sequence[JetStreamEngine], place: ConsumerKey) -> None:
    lost: list[int] = []
    takers = [
        replicas[index % 2].leases.acquire(
            place, holder(f"session-{index}", take_over=True), partial(lost.append, index)
        )
        for index in range(4)
    ]
    leases = await asyncio.gather(*takers)
    fences = [lease.fence for lease in leases]
    last = fences.index(max(fences))
    assert len(set(fences)) == 4
    await until(lambda: len(lost) == 3)
    renewed = [await replicas[index % 2].leases.renew(lease) for index, lease in enumerate(leases)]
    assert [lease is not None for lease in renewed] == [index == last for index in range(4)]
    assert sorted([*lost, last]) == [0, 1, 2, 3]


async def test_the_table_of_rules_holds_across_replicas(replicas: Sequence[JetStreamEngine]) -> None:
    one, two = (replica.leases for replica in replicas)
    lost: list[str] = []
    first = await one.acquire(PLACE, holder(attempt=5), lambda: lost.append("first"))
    with refused("STALE_ATTEMPT"):
        await two.acquire(PLACE, holder(attempt=5), nobody)
    with refused("CONSUMER_BUSY") as caught:
        await two.acquire(PLACE, holder("two"), nobody)
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 15
    second = await two.acquire(PLACE, holder(attempt=6), lambda: lost.append("second"))
    await until(lambda: lost == ["first"])
    third = await one.acquire(PLACE, holder("two", take_over=True), nobody)
    await until(lambda: lost == ["first", "second"])
    assert first.fence < second.fence < third.fence
    assert await one.renew(first) is None
    assert await two.renew(second) is None
    await two.release(second)
    assert await one.renew(third) is not None


async def test_a_lost_lease_without_a_notice_is_found_by_its_renewal(
    replicas: Sequence[JetStreamEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_subject: str, _payload: bytes) -> None:
        """A message that gets lost."""

    one, two = replicas
    monkeypatch.setattr(two._connection, "notify", lost)
    first = await one.leases.acquire(PLACE, holder(), nobody)
    await two.leases.acquire(PLACE, holder("two", take_over=True), nobody)
    assert await one.leases.renew(first) is None
    with refused("CONSUMER_BUSY"):
        await one.leases.acquire(PLACE, holder("three"), nobody)


async def test_a_notice_that_overtakes_the_answer_is_no_less_a_notice(
    replicas: Sequence[JetStreamEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (replica.leases for replica in replicas)
    lost: list[str] = []
    received = asyncio.Event()
    assert isinstance(one, JetStreamLeases)
    publish, receive = one._messages.publish, one._receive

    async def overtaken(*arguments: Any, **options: Any) -> int:
        sequence = await publish(*arguments, **options)
        await two.acquire(PLACE, holder("two", take_over=True), nobody)
        async with asyncio.timeout(20):
            await received.wait()
        return sequence

    async def noticed(message: Any) -> None:
        await receive(message)
        received.set()

    await one._connection.listen(one._location.lost(one._replica), noticed)
    monkeypatch.setattr(one._messages, "publish", overtaken)
    await one.acquire(PLACE, holder(), lambda: lost.append("first"))
    assert lost == ["first"]
    assert not one._acquiring
    assert not one._lost_early


async def test_a_renewed_place_is_the_same_one_until_it_is_lost(replicas: Sequence[JetStreamEngine]) -> None:
    lost: list[str] = []
    lease = first = await replicas[0].leases.acquire(PLACE, holder(), lambda: lost.append("first"))
    for _ in range(5):
        renewed = await replicas[0].leases.renew(lease)
        assert renewed is not None
        assert renewed.fence == first.fence
        lease = renewed
    await replicas[1].leases.acquire(PLACE, holder(attempt=2), nobody)
    await until(lambda: lost == ["first"])
    assert await replicas[0].leases.renew(lease) is None


async def test_nobody_is_refused_for_a_place_that_was_lost_unseen_and_is_free(
    replicas: Sequence[JetStreamEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_subject: str, _payload: bytes) -> None:
        """A message that gets lost."""

    one, two = replicas
    monkeypatch.setattr(two._connection, "notify", lost)
    await one.leases.acquire(PLACE, holder(), nobody)
    taken = await two.leases.acquire(PLACE, holder("two", take_over=True), nobody)
    await two.leases.release(taken)
    third = await one.leases.acquire(PLACE, holder("three"), nobody)
    assert third.fence > taken.fence


async def test_a_place_given_back_while_it_is_renewed_is_free(replicas: Sequence[JetStreamEngine]) -> None:
    one, two = replicas
    for turn in range(50):
        lease = await one.leases.acquire(PLACE, holder(f"session-{turn}"), nobody)
        await asyncio.gather(one.leases.renew(lease), one.leases.release(lease))
        rival = await two.leases.acquire(PLACE, holder("rival"), nobody)
        assert rival.fence > lease.fence
        await two.leases.release(rival)


async def test_a_place_given_back_is_free_for_the_other_replica_with_a_higher_fence(
    replicas: Sequence[JetStreamEngine],
) -> None:
    fences = []
    for turn in range(10):
        leases = replicas[turn % 2].leases
        lease = await leases.acquire(PLACE, holder(f"session-{turn}"), nobody)
        fences.append(lease.fence)
        await leases.release(lease)
    assert fences == sorted(set(fences))


async def test_a_place_is_free_once_its_dead_holder_cannot_send_and_fences_go_on(location: Location) -> None:
    clock = SystemClock()
    dead = await JetStreamEngine.open(location, clock, lease_ttl=2)
    first = await dead.leases.acquire(PLACE, holder(), nobody)
    renewed = await dead.leases.renew(first)
    assert renewed is not None
    await dead.close()
    engine = await JetStreamEngine.open(location, clock, lease_ttl=2)
    with refused("CONSUMER_BUSY"):
        await engine.leases.acquire(PLACE, holder("two"), nobody)
    second: Lease | None = None

    async def free() -> bool:
        nonlocal second
        try:
            second = await engine.leases.acquire(PLACE, holder("two"), nobody)
        except Exception:
            return False
        return True

    await until(free)
    assert clock.monotonic() >= renewed.valid_until
    assert second is not None
    assert second.fence > first.fence
    await engine.close()


async def test_a_lease_that_has_expired_is_not_renewed(location: Location) -> None:
    """Somebody else may have had the lease since, and nothing shows it."""
    engine = await JetStreamEngine.open(location, SystemClock(), lease_ttl=1)
    lease = await engine.leases.acquire(PLACE, holder(), nobody)
    subject = location.lease(PLACE)

    async def expired() -> bool:
        return await engine._leases._messages.last(location.lease_stream, subject) is None

    await until(expired)
    with refused("UNAVAILABLE"):
        await engine.leases.renew(lease)
    assert await expired()
    assert (await engine.leases.acquire(PLACE, holder(), nobody)).fence > lease.fence
    await engine.close()


async def test_a_lease_released_at_once_displaces_the_holder_on_another_replica(
    replicas: Sequence[JetStreamEngine],
) -> None:
    lost: list[int] = []
    held = await replicas[0].leases.acquire(PLACE, holder(), lambda: lost.append(1))
    with refused("CONSUMER_BUSY"):
        await replicas[1].leases.acquire_and_release(PLACE, holder("two"))
    fence = await replicas[1].leases.acquire_and_release(PLACE, holder("two", take_over=True))
    await until(lambda: lost == [1])
    assert fence > held.fence
    assert await replicas[0].leases.renew(held) is None
    await replicas[0].leases.acquire(PLACE, holder("three"), nobody)
