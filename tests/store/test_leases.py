"""One stream per consumer: the table of rules, and the places that every engine gives out."""

import pytest

from lavant.server.errors import LavantError
from lavant.server.model import ConsumerKey
from lavant.server.store.leases import ProcessLeases, decide
from lavant.server.store.port import Claim, Engine, Lease
from lavant.v1.error_pb2 import ErrorReason
from support.clock import ManualClock
from support.engines import KEY, refused

PLACE = ConsumerKey(KEY, "ui")
TTL = 15.0


def claim(session: str = "one", attempt: int = 1, *, take_over: bool = False) -> Claim:
    return Claim(session_id=session, attempt=attempt, take_over=take_over)


def held_until(valid_until: float) -> Lease:
    return Lease(key=PLACE, claim=claim(attempt=5), fence=1, valid_until=valid_until)


@pytest.mark.parametrize(
    ("held", "newcomer", "reason"),
    [
        (None, claim(), None),
        (None, claim(take_over=True), None),
        (held_until(100), claim(attempt=1), None),
        (held_until(100), claim("two"), None),
        (held_until(101), claim(attempt=6), None),
        (held_until(101), claim(attempt=5), "STALE_ATTEMPT"),
        (held_until(101), claim(attempt=4), "STALE_ATTEMPT"),
        (held_until(101), claim(attempt=5, take_over=True), "STALE_ATTEMPT"),
        (held_until(101), claim("two", 9), "CONSUMER_BUSY"),
        (held_until(101), claim("two", 1, take_over=True), None),
    ],
)
def test_who_gets_the_place(held: Lease | None, newcomer: Claim, reason: str | None) -> None:
    if reason is None:
        decide(held, newcomer, 100)
        return
    with refused(reason):
        decide(held, newcomer, 100)


async def test_a_rival_learns_how_long_to_wait(engine: Engine, clock: ManualClock) -> None:
    await engine.leases.acquire(PLACE, claim(), lambda: None)
    clock.advance(5)
    with pytest.raises(LavantError) as caught:
        await engine.leases.acquire(PLACE, claim("two"), lambda: None)
    assert caught.value.reason == ErrorReason.ERROR_REASON_CONSUMER_BUSY
    assert caught.value.retry_after == TTL - 5
    clock.advance(caught.value.retry_after)
    await engine.leases.acquire(PLACE, claim("two"), lambda: None)


async def test_who_had_the_place_is_told_before_the_newcomer_has_it(engine: Engine) -> None:
    lost: list[str] = []
    first = await engine.leases.acquire(PLACE, claim(), lambda: lost.append("first"))
    second = await engine.leases.acquire(PLACE, claim(attempt=2), lambda: lost.append("second"))
    assert lost == ["first"]
    third = await engine.leases.acquire(PLACE, claim("two", take_over=True), lambda: lost.append("third"))
    assert lost == ["first", "second"]
    assert first.fence < second.fence < third.fence


async def test_a_lost_lease_can_be_neither_renewed_nor_released(engine: Engine) -> None:
    first = await engine.leases.acquire(PLACE, claim(), lambda: None)
    second = await engine.leases.acquire(PLACE, claim(attempt=2), lambda: None)
    assert await engine.leases.renew(first) is None
    await engine.leases.release(first)
    with refused("CONSUMER_BUSY"):
        await engine.leases.acquire(PLACE, claim("two"), lambda: None)
    assert await engine.leases.renew(second) is not None


async def test_renewal_holds_the_place_for_longer(engine: Engine, clock: ManualClock) -> None:
    lease = await engine.leases.acquire(PLACE, claim(), lambda: None)
    clock.advance(TTL - 1)
    renewed = await engine.leases.renew(lease)
    assert renewed is not None
    assert renewed.valid_until == clock.monotonic() + TTL
    clock.advance(TTL - 1)
    with refused("CONSUMER_BUSY"):
        await engine.leases.acquire(PLACE, claim("two"), lambda: None)


async def test_the_holder_of_an_expired_lease_is_told_who_came(engine: Engine, clock: ManualClock) -> None:
    lost: list[str] = []
    first = await engine.leases.acquire(PLACE, claim(), lambda: lost.append("first"))
    clock.advance(TTL)
    await engine.leases.acquire(PLACE, claim("two"), lambda: lost.append("second"))
    assert lost == ["first"]
    assert await engine.leases.renew(first) is None


async def test_a_place_given_back_is_free_at_once_and_nobody_is_told(engine: Engine) -> None:
    lost: list[str] = []
    first = await engine.leases.acquire(PLACE, claim(), lambda: lost.append("first"))
    await engine.leases.release(first)
    second = await engine.leases.acquire(PLACE, claim("two"), lambda: lost.append("second"))
    assert lost == []
    assert first.fence < second.fence


async def test_consumers_and_runs_do_not_share_places(engine: Engine) -> None:
    await engine.leases.acquire(PLACE, claim(), lambda: None)
    await engine.leases.acquire(ConsumerKey(KEY, "other"), claim("two"), lambda: None)
    await engine.leases.acquire(ConsumerKey(KEY._replace(run_id="other"), "ui"), claim("two"), lambda: None)


async def test_places_that_nobody_gave_back_are_forgotten(clock: ManualClock) -> None:
    leases = ProcessLeases(clock=clock, incarnation=1)
    for number in range(1_024):
        await leases.acquire(ConsumerKey(KEY, str(number)), claim(), lambda: None)
    clock.advance(TTL)
    kept = await leases.acquire(PLACE, claim(), lambda: None)
    assert await leases.renew(kept) is not None
    assert len(leases._places) == 1
