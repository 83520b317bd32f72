"""The register of long-lived calls: how many may be on, and how they are asked to leave."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from lavant.server.errors import LavantError, unavailable
from lavant.v1.error_pb2 import ErrorReason


class Caller(Protocol):
    """Whoever makes a call, over gRPC or HTTP. The tenant comes from credentials alone."""

    @property
    def tenant(self) -> str:
        """Whose runs it may see."""

    @property
    def write(self) -> Callable[[bytes], Awaitable[None]]:
        """Sends one message of a stream; returns once flow control has accepted it."""

    def time_remaining(self) -> float | None:
        """Seconds until the call's deadline; None: it has none."""


class Calls:
    """The register of long-lived calls.

    `grpc.aio.Server.stop` does not wait for handlers to clean up; this does.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[object, Callable[[], None]] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def entered(self, on_drain: Callable[[], None]) -> Iterator[None]:
        """Be on the register for the length of the block; `on_drain` asks the call to end soon.

        Raises UNAVAILABLE when draining, QUOTA_EXCEEDED when there are too many calls.
        """
        if self.draining:
            raise unavailable("the server is shutting down; try another, or again")
        if len(self._open) >= self._limit:
            raise LavantError(
                ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
                f"the server has {self._limit} streams open, as many as it may; try again later",
                resource="streams",
            )
        ticket = object()
        self._open[ticket] = on_drain
        self._none_open.clear()
        try:
            yield
        finally:
            del self._open[ticket]
            if not self._open:
                self._none_open.set()

    def drain(self) -> None:
        """Take no more calls, and ask those that are on to end."""
        self.draining = True
        for on_drain in tuple(self._open.values()):
            on_drain()

    async def ended(self) -> None:
        """Wait until no call is on."""
        await self._none_open.wait()
