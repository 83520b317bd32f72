"""Requests on one streaming call, with many in flight."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio

Keys = Callable[[bytes], Iterable[str]]


class Pipelined:
    """Requests on one streaming call, any number of them in flight.

    `keys` returns what an answer answers: requests are answered in order within a key.
    """

    def __init__(self, call: Any, keys: Keys) -> None:
        self._call = call
        self._keys = keys
        self._writing = asyncio.Lock()  # a call takes one write at a time
        self._unanswered: dict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    async def request(self, key: str, request: bytes) -> None:
        """Send a request, and wait for its answer."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._writing:
            self._unanswered[key].append(answered)
            await self._call.write(request)
        await answered

    async def receive(self) -> None:
        """Receive answers until the call ends."""
        while (answer := await self._call.read()) is not aio.EOF:
            for key in self._keys(answer):
                self._unanswered[key].popleft().set_result(None)


@asynccontextmanager
async def pipelined(call: Any, keys: Keys) -> AsyncIterator[Pipelined]:
    """Receive the answers of a call until the block's end."""
    pipeline = Pipelined(call, keys)
    receiving = asyncio.create_task(pipeline.receive())
    yield pipeline
    receiving.cancel()
    call.cancel()
