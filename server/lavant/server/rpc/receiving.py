"""Turns of receiving requests, which bound what is kept in memory of those that have not arrived."""

import asyncio
from collections import Counter, OrderedDict, deque
from math import ceil
from typing import Any

from grpc import aio

from lavant.server.streaming.peers import PEER

REQUEST_LIMIT = 20.0  # seconds from the start of a call until its request has arrived


class ReceivingTurns:
    """Turns of receiving requests: gRPC keeps what has arrived of a message that is being received, up to 4 MiB.

    Of a request whose turn has not come, it keeps 64 KiB. The calls of one address never have all turns, and addresses
    that wait get theirs one after the other.
    """

    def __init__(self, limit: int, share: float) -> None:
        self._free = limit
        self._per_peer = ceil(limit * share)
        self._receiving: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, peer: str) -> None:
        """Wait for a turn of an address, which is held until its release."""
        if self._fits(peer):
            self._take(peer)
        else:
            await self._wait(peer)

    def _fits(self, peer: str) -> bool:
        return self._free > 0 and self._receiving[peer] < self._per_peer

    def _take(self, peer: str) -> None:
        self._free -= 1
        self._receiving[peer] += 1

    async def _wait(self, peer: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came, and the call was cancelled before it could use it
                self.release(peer)
            raise

    def release(self, peer: str) -> None:
        """End a turn of an address: the next call that fits has it."""
        self._free += 1
        self._receiving[peer] -= 1
        if not self._receiving[peer]:
            del self._receiving[peer]
        for waiting in tuple(self._waiting):
            if self._fits(waiting) and self._serve(waiting):
                return

    def _serve(self, peer: str) -> bool:
        """Grant a turn to the first call of an address that still waits; return whether there was one."""
        turns = self._waiting.pop(peer)
        while turns:
            turn = turns.popleft()
            if not turn.done():
                self._take(peer)
                turn.set_result(None)
                if turns:
                    self._waiting[peer] = turns  # behind the other addresses
                return True
        return False


async def received(context: aio.ServicerContext[Any, Any], turns: ReceivingTurns) -> Any:
    """Return the one message of a request, or EOF. Raises TimeoutError if it does not arrive whole in time."""
    peer = PEER.get()
    async with asyncio.timeout(REQUEST_LIMIT):
        await turns.acquire(peer)
        try:
            return await context.read()
        finally:
            turns.release(peer)
