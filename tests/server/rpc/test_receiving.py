"""Turns of receiving requests: bounded in all and per address, in turn, and never lost to a call that is cancelled."""

import asyncio

from lavant.server.rpc.receiving import ReceivingTurns


class Calls:
    """Calls that take turns, each until its request arrives."""

    def __init__(self, intake: ReceivingTurns) -> None:
        self._turns = intake
        self.receiving: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._arrived: dict[str, asyncio.Event] = {}

    async def begin(self, *names: str) -> None:
        """Begin calls; the first character of a name is the address."""
        for name in names:
            self._arrived[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._receive(name))
            await settled()

    async def arrive(self, name: str) -> None:
        """The request of a call arrives."""
        self._arrived[name].set()
        await settled()

    async def cancel(self, *names: str) -> None:
        """Cancel calls at once."""
        for name in names:
            self._tasks[name].cancel()
        await settled()

    async def _receive(self, name: str) -> None:
        await self._turns.acquire(name[0])
        self.receiving.append(name)
        try:
            await self._arrived[name].wait()
        finally:
            self.receiving.remove(name)
            self._turns.release(name[0])


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_turns_are_bounded_in_all_and_per_address() -> None:
    calls = Calls(ReceivingTurns(4, 0.5))
    await calls.begin("a1", "a2", "a3", "a4", "b1")
    assert calls.receiving == ["a1", "a2", "b1"]
    await calls.arrive("a1")
    assert calls.receiving == ["a2", "b1", "a3"]


async def test_addresses_that_wait_get_their_turns_one_after_the_other() -> None:
    calls = Calls(ReceivingTurns(2, 1))
    await calls.begin("x1", "x2", "a1", "a2", "a3", "b1", "c1")
    order = []
    for name in ("x1", "x2", "a1", "b1", "c1"):
        await calls.arrive(name)
        order.append(calls.receiving[-1])
    assert order == ["a1", "b1", "c1", "a2", "a3"]


async def test_a_call_that_is_cancelled_passes_its_turn_on() -> None:
    calls = Calls(ReceivingTurns(1, 1))
    await calls.begin("a1", "a2", "b1", "b2")
    await calls.cancel("a2")  # while it waits
    calls._arrived["a1"].set()
    calls._tasks["b1"].cancel()  # when its turn may have come
    await settled()
    assert calls.receiving == ["b2"]
    await calls.cancel("b2")
    await calls.begin("c1")
    assert calls.receiving == ["c1"]
    await calls.cancel("c1")
