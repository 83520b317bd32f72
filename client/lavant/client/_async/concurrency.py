"""All that depends on asyncio itself: waiting, waking, background work, reading with a time limit."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc.aio

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

if TYPE_CHECKING:
    from lavant.v1.event_service_pb2 import (
        PublishEventsRequest,
        PublishEventsResponse,
        StreamEventsRequest,
        StreamEventsResponse,
    )

    ReadingCall = grpc.aio.UnaryStreamCall[_Request, _Response] | grpc.aio.StreamStreamCall[_Request, _Response]
    StreamCall = grpc.aio.UnaryStreamCall[StreamEventsRequest, StreamEventsResponse]
    PublishCall = grpc.aio.StreamStreamCall[PublishEventsRequest, PublishEventsResponse]

sleep = asyncio.sleep
monotonic = time.monotonic
Cancelled = asyncio.CancelledError
ClientClosed = grpc.aio.UsageError


def is_being_cancelled() -> bool:
    """Tell whether it is the current task that is cancelled, not merely a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def read(call: "ReadingCall[_Request, _Response]", timeout: float | None = None) -> _Response | None:
    """Return a call's next message, or None once it ended with OK.

    After `timeout` seconds raises TimeoutError; the call is cancelled then, and of no further use.
    """
    async with asyncio.timeout(timeout):
        message = await call.read()
    return None if message is grpc.aio.EOF else cast("_Response", message)


async def finish(call: "ReadingCall[Any, Any]", timeout: float) -> None:
    """Read a call to its status, which frees what the server holds for it; cancel it if that takes long."""
    try:
        while await read(call, timeout) is not None:
            pass
    except (TimeoutError, grpc.RpcError):
        call.cancel()


async def write(call: "grpc.aio.StreamStreamCall[_Request, _Response]", message: _Request) -> bool:
    """Send a message; tell whether the call took it. If not, the call is over: read its status."""
    try:
        await call.write(message)
    except (asyncio.InvalidStateError, grpc.RpcError):
        return False
    return True


async def end_writing(call: "grpc.aio.StreamStreamCall[Any, Any]") -> None:
    """Tell the server that no more messages come, unless the call is over already."""
    with suppress(asyncio.InvalidStateError, grpc.RpcError):
        await call.done_writing()


class Signal:
    """Wakes those who wait for a change. Not thread-safe."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Tell all who wait to look again. Never blocks."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until a condition holds; after `timeout` seconds tell whether it does."""
        deadline = None if timeout is None else monotonic() + timeout
        while not condition():
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            await self._wait(left)
        return True

    async def _wait(self, timeout: float | None) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout)
        finally:
            self._waiters.discard(waiter)


class Background:
    """Work that goes on beside its owner, until it is done or stopped."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.create_task(work())

    async def join(self) -> None:
        """Wait for its end; raises what it raised."""
        await self._task

    async def stop(self, grace: float = 0.0) -> None:
        """Give it `grace` seconds to end by itself, then cancel it; return when it has ended."""
        try:
            await asyncio.wait((self._task,), timeout=grace)
        finally:
            self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()
