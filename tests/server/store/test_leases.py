"""One stream per consumer: the table of rules, and the leases of every engine."""

import pytest

from lavant.server.errors import ServiceError
from lavant.server.model import ConsumerKey
from lavant.server.store.leases import ProcessLeases, decide
from lavant.server.store.ownership import NOBODY, Owner
from lavant.server.store.port import Engine, Holder, Lease
from lavant.v1.error_pb2 import ErrorReason
from support.clock import ManualClock
from support.engines import KEY, refused

PLACE = ConsumerKey(KEY, "ui")
TTL = 15.0


ALICE, BOB, CAROL = Owner("alice"), Owner("bob"), Owner("carol", may_take_over=True)


def holder(session: str = "one", attempt: int = 1, *, take_over: bool = False, owner: Owner = NOBODY) -> Holder:
    return Holder(session_id=session, attempt=attempt, take_over=take_over, owner=owner)


def held_until(valid_until: float, owner: Owner = NOBODY) -> Lease:
    return Lease(key=PLACE, holder=holder(attempt=5, owner=owner), fence=1, valid_until=valid_until)


@pytest.mark.parametrize(
    ("held", "newcomer", "reason"),
    [
        (None, holder(), None),
        (None, holder(take_over=True), None),
        (held_until(100), holder(attempt=1), None),
        (held_until(100), holder("two"), None),
        (held_until(101), holder(attempt=6), None),
        (held_until(101), holder(attempt=5), "STALE_ATTEMPT"),
        (held_until(101), holder(attempt=4), "STALE_ATTEMPT"),
        (held_until(101), holder(attempt=5, take_over=True), "STALE_ATTEMPT"),
        (held_until(101), holder("two", 9), "CONSUMER_BUSY"),
        (held_until(101), holder("two", 1, take_over=True), None),
        (held_until(101), holder("two", 1, take_over=True, owner=ALICE), None),
        (held_until(101, ALICE), holder(attempt=6, owner=ALICE), None),
        (held_until(101, ALICE), holder("two", 1, take_over=True, owner=ALICE), None),
        (held_until(101, ALICE), holder(attempt=6, owner=BOB), "CONSUMER_BUSY"),
        (held_until(101, ALICE), holder(attempt=5, owner=BOB), "CONSUMER_BUSY"),
        (held_until(101, ALICE), holder(attempt=6, take_over=True, owner=BOB), "PERMISSION_DENIED"),
        (held_until(101, ALICE), holder("two", 1, take_over=True, owner=BOB), "PERMISSION_DENIED"),
        (held_until(101, ALICE), holder("two", 1, owner=CAROL), "CONSUMER_BUSY"),
        (held_until(101, ALICE), holder("two", 1, take_over=True, owner=CAROL), None),
        (held_until(100, ALICE), holder("two", 1, owner=BOB), None),
    ],
)
def test_who_gets_the_place(held: Lease | None, newcomer: Holder, reason: str | None) -> None:
    if reason is None:
        decide(held, newcomer, 100)
        return
    with refused(reason):
        decide(held, newcomer, 100)


async def test_a_rival_learns_how_long_to_wait(engine: Engine, clock: ManualClock) -> None:
    await engine.leases.acquire(PLACE, holder(), lambda: None)
    clock.advance(5)
    with pytest.raises(ServiceError) as caught:
        await engine.leases.acquire(PLACE, holder("two"), lambda: None)
    assert caught.value.reason == ErrorReason.ERROR_REASON_CONSUMER_BUSY
    assert caught.value.retry_after == TTL - 5
    clock.advance(caught.value.retry_after)
    await engine.leases.acquire(PLACE, holder("two"), lambda: None)


async def test_the_holder_is_notified_before_the_newcomer_has_the_lease(engine: Engine) -> None:
    lost: list[str] = []
    first = await engine.leases.acquire(PLACE, holder(), lambda: lost.append("first"))
    second = await engine.leases.acquire(PLACE, holder(attempt=2), lambda: lost.append("second"))
    assert lost == ["first"]
    third = await engine.leases.acquire(PLACE, holder("two", take_over=True), lambda: lost.append("third"))
    assert lost == ["first", "second"]
    assert first.fence < second.fence < third.fence


async def test_a_displaced_session_cannot_take_over_again(engine: Engine) -> None:
    await engine.leases.acquire(PLACE, holder(), lambda: None)
    await engine.leases.acquire(PLACE, holder("two", take_over=True), lambda: None)
    renewed = await engine.leases.acquire(PLACE, holder("two", attempt=2), lambda: None)
    with refused("CONSUMER_BUSY"):
        await engine.leases.acquire(PLACE, holder(attempt=2, take_over=True), lambda: None)
    third = await engine.leases.acquire(PLACE, holder("three", take_over=True), lambda: None)
    for session in ("one", "two"):
        with refused("CONSUMER_BUSY"):
            await engine.leases.acquire(PLACE, holder(session, attempt=9, take_over=True), lambda: None)
    await engine.leases.release(third)
    assert (await engine.leases.acquire(PLACE, holder(attempt=9), lambda: None)).fence > renewed.fence


async def test_a_lost_lease_can_be_neither_renewed_nor_released(engine: Engine) -> None:
    first = await engine.leases.acquire(PLACE, holder(), lambda: None)
    second = await engine.leases.acquire(PLACE, holder(attempt=2), lambda: None)
    assert await engine.leases.renew(first) is None
    await engine.leases.release(first)
    with refused("CONSUMER_BUSY"):
        await engine.leases.acquire(PLACE, holder("two"), lambda: None)
    assert await engine.leases.renew(second) is not None


async def test_renewal_holds_the_place_for_longer(engine: Engine, clock: ManualClock) -> None:
    lease = await engine.leases.acquire(PLACE, holder(), lambda: None)
    clock.advance(TTL - 1)
    renewed = await engine.leases.renew(lease)
    assert renewed is not None
    assert renewed.valid_until == clock.monotonic() + TTL
    clock.advance(TTL - 1)
    with refused("CONSUMER_BUSY"):
        await engine.leases.acquire(PLACE, holder("two"), lambda: None)


async def test_the_holder_of_an_expired_lease_is_notified(engine: Engine, clock: ManualClock) -> None:
    lost: list[str] = []
    first = await engine.leases.acquire(PLACE, holder(), lambda: lost.append("first"))
    clock.advance(TTL)
    await engine.leases.acquire(PLACE, holder("two"), lambda: lost.append("second"))
    assert lost == ["first"]
    assert await engine.leases.renew(first) is None


async def test_a_released_lease_is_free_at_once_and_nobody_is_notified(engine: Engine) -> None:
    lost: list[str] = []
    first = await engine.leases.acquire(PLACE, holder(), lambda: lost.append("first"))
    await engine.leases.release(first)
    second = await engine.leases.acquire(PLACE, holder("two"), lambda: lost.append("second"))
    assert lost == []
    assert first.fence < second.fence


async def test_consumers_and_runs_do_not_share_places(engine: Engine) -> None:
    await engine.leases.acquire(PLACE, holder(), lambda: None)
    await engine.leases.acquire(ConsumerKey(KEY, "other"), holder("two"), lambda: None)
    await engine.leases.acquire(ConsumerKey(KEY._replace(run_id="other"), "ui"), holder("two"), lambda: None)


async def test_places_that_nobody_gave_back_are_forgotten(clock: ManualClock) -> None:
    leases = ProcessLeases(clock=clock, incarnation=1)
    for number in range(1_024):
        await leases.acquire(ConsumerKey(KEY, str(number)), holder(), lambda: None)
    clock.advance(TTL)
    kept = await leases.acquire(PLACE, holder(), lambda: None)
    assert await leases.renew(kept) is not None
    assert len(leases._held) == 1


async def test_a_lease_released_at_once_refuses_and_displaces_as_one_that_is_held(engine: Engine) -> None:
    lost: list[str] = []
    held = await engine.leases.acquire(PLACE, holder(attempt=2), lambda: lost.append("first"))
    for rival, reason in ((holder("two"), "CONSUMER_BUSY"), (holder(attempt=2), "STALE_ATTEMPT")):
        with refused(reason):
            await engine.leases.acquire_and_release(PLACE, rival)
    assert lost == []
    fence = await engine.leases.acquire_and_release(PLACE, holder(attempt=3))
    assert lost == ["first"]
    await engine.leases.release(held)
    again = await engine.leases.acquire_and_release(PLACE, holder("two"))
    assert held.fence < fence < again < (await engine.leases.acquire(PLACE, holder("three"), lambda: None)).fence
