"""What depends on asyncio: time, waiting, waking, work in the background."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from inspect import isawaitable
from typing import Any

monotonic = time.monotonic


class Lock:
    """Guards nothing: between two awaits nobody else runs."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Clock:
    """Time as the client knows it. A test has one of its own."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return a block that is cancelled after so long, and raises TimeoutError then."""
        return asyncio.timeout(seconds)


def is_being_cancelled() -> bool:
    """Tell whether it is the current task that is cancelled, not merely a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def call_handler(handler: Callable[[Any], object], argument: object, timeout: float) -> None:
    """Call a handler of the user's. One that is asynchronous gets `timeout` seconds, then TimeoutError is raised."""
    result = handler(argument)
    if isawaitable(result):
        async with asyncio.timeout(timeout):
            await result


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

    async def stop(self, grace: float = 0.0, hang_up: Callable[[], None] = lambda: None) -> None:
        """Give it `grace` seconds to end by itself, then hang up on it and cancel it; return when it has ended."""
        try:
            await asyncio.wait((self._task,), timeout=grace)
        finally:
            hang_up()
            self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()
