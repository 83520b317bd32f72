"""Turns of callers: by tenant, then by connection, each in its own order."""

import asyncio
from collections.abc import Iterable

import pytest

from lavant.server.turns import FairQueue, Origin, Turns, serve
from support.engines import refused


def queue_of(items: Iterable[str]) -> FairQueue[str]:
    """Queue items that are named TENANT/CONNECTION/NUMBER."""
    queue = FairQueue[str]()
    for item in items:
        tenant, connection, _ = item.split("/")
        queue.add(Origin(tenant, connection), item)
    return queue


def popped(queue: FairQueue[str]) -> list[str]:
    found = []
    while queue:
        found.append(queue.pop())
    return found


def test_tenants_are_served_in_turn_whatever_others_have_queued() -> None:
    flood = [f"flood/{number % 3}/{number}" for number in range(7)]
    assert popped(queue_of([*flood, "one/0/a", "one/0/b"])) == [
        "flood/0/0",
        "one/0/a",
        "flood/1/1",
        "one/0/b",
        "flood/2/2",
        "flood/0/3",
        "flood/1/4",
        "flood/2/5",
        "flood/0/6",
    ]


def test_connections_of_one_tenant_are_served_in_turn() -> None:
    assert popped(queue_of(["t/0/a", "t/0/b", "t/0/c", "t/1/d"])) == ["t/0/a", "t/1/d", "t/0/b", "t/0/c"]


def test_an_item_that_is_added_again_is_not_moved() -> None:
    assert popped(queue_of(["t/0/a", "t/0/b", "t/0/a"])) == ["t/0/a", "t/0/b"]


def test_discarded_items_are_not_served_and_the_counts_follow() -> None:
    queue = queue_of(["t/0/a", "t/1/b", "other/0/c"])
    queue.discard(Origin("t", "0"), "t/0/a")
    queue.discard(Origin("t", "0"), "t/0/a")
    queue.discard(Origin("nobody", "0"), "t/0/a")
    assert (queue.count("t"), queue.count("nobody"), queue.tenants()) == (1, 0, 2)
    assert popped(queue) == ["t/1/b", "other/0/c"]
    assert not queue
    with pytest.raises(KeyError):
        queue.pop()


async def waiting(turns: Turns, served: list[str], tenant: str, name: str) -> "asyncio.Task[None]":
    """Start a task that waits for a turn, and keeps it until the next iteration of the loop."""

    async def work() -> None:
        serve(Origin(tenant))
        async with turns:
            served.append(name)
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    return task


async def test_turns_alternate_between_tenants() -> None:
    turns, served = Turns(1), list[str]()
    await turns.acquire()
    tasks = [await waiting(turns, served, "flood", f"flood {number}") for number in range(4)]
    tasks.append(await waiting(turns, served, "one", "one"))
    turns.release()
    await asyncio.gather(*tasks)
    assert served == ["flood 0", "one", "flood 1", "flood 2", "flood 3"]


async def test_the_turn_of_a_caller_that_has_gone_is_the_next_ones() -> None:
    turns, served = Turns(1), list[str]()
    await turns.acquire()
    gone, gone_at_its_turn, next_one = [await waiting(turns, served, "t", name) for name in ("a", "b", "c")]
    gone.cancel()
    await asyncio.sleep(0)
    turns.release()  # b has the turn, and goes before it can use it
    gone_at_its_turn.cancel()
    await asyncio.wait((gone, gone_at_its_turn, next_one))
    assert served == ["c"]
    async with asyncio.timeout(30), turns:  # it is free again
        pass


async def test_too_many_waiters_of_one_tenant_are_refused_and_no_others() -> None:
    turns, served = Turns(1, max_waiting=2), list[str]()
    await turns.acquire()
    tasks = [await waiting(turns, served, "flood", str(number)) for number in range(3)]
    with refused("UNAVAILABLE") as caught:
        await tasks.pop()
    assert caught.value.retry_after
    tasks.append(await waiting(turns, served, "one", "one"))
    turns.release()
    await asyncio.gather(*tasks)
    assert sorted(served) == ["0", "1", "one"]
