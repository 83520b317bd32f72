"""What depends on asyncio: time, waiting, waking, work in the background."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NoReturn

monotonic = time.monotonic
# Seconds after which gRPC has reported the end of a call that was cancelled. Where the event loop is closed by then,
# it logs an error.
_AFTERMATH = 0.05


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


class UsageHints:
    """Base of what is asynchronous: says so to those who use it as if it were not."""

    if not TYPE_CHECKING:  # To type checkers, it has none of these.

        def __enter__(self) -> NoReturn:
            raise self._hint("`with`", "`async with`")

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> NoReturn:
            raise self._hint("`for`", "`async for`")

        def __await__(self) -> NoReturn:
            raise self._hint("`await`", "`async with` or `async for`, or await one of its methods")

        def _hint(self, wrong: str, right: str) -> TypeError:
            name = type(self).__name__
            blocking = "; code that is not async uses lavant.client.Client, not AsyncClient" * (wrong != "`await`")
            return TypeError(f"{name} cannot be used with {wrong}: use {right}{blocking}")


def current_reader() -> int:
    """Tell tasks apart."""
    return id(asyncio.current_task())


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


class Home:
    """The event loop that a client's channels and tasks belong to: the one that runs where this is made.

    Raises RuntimeError where none runs.
    """

    def __init__(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("no event loop is running: AsyncClient needs one; use Client in blocking code") from None
        self._process = os.getpid()

    @property
    def is_gone(self) -> bool:
        """Whether nothing can run there any more: the loop is closed, or this process was forked since."""
        return self._loop.is_closed() or self._process != os.getpid()

    def check(self) -> None:
        """Raise RuntimeError if this is another event loop."""
        if _running_loop() is not self._loop:
            raise RuntimeError(
                "this AsyncClient is in use in another event loop: create one AsyncClient per event loop, "
                "or use Client, which may be used from any thread"
            )

    def call(self, action: Callable[[], None]) -> None:
        """Call something in the event loop: now, if it runs in this thread."""
        if _running_loop() is self._loop:
            action()
        else:
            self._loop.call_soon_threadsafe(action)

    def run_at_exit(self, work: Callable[[], Coroutine[Any, Any, None]], timeout: float) -> None:
        """Do some work while the process exits: in this event loop, or in another one where it is closed."""
        if self._loop.is_closed():
            asyncio.run(work())
        elif self._loop.is_running():
            asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout)
        else:
            self._loop.run_until_complete(work())


class Signal:
    """Wakes those who wait for a change. `notify` may be called from any thread, the rest in one event loop."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def renew(self) -> None:
        """Forget who waits, in a process that was forked from theirs."""
        self._waiters = set()

    def notify(self) -> None:
        """Tell all who wait to look again. Never blocks."""
        if self._waiters:
            here = _running_loop()
            for waiter in tuple(self._waiters):
                _wake(waiter, here)

    async def wait_for(
        self, condition: Callable[[], bool], timeout: float | None = None, *, shield: float = 0.0
    ) -> bool:
        """Wait until a condition holds; after `timeout` seconds tell whether it does.

        Whoever is cancelled meanwhile, however often, waits `shield` seconds more before CancelledError is raised.
        """
        deadline = None if timeout is None else monotonic() + timeout
        cancelled: asyncio.CancelledError | None = None
        while not condition():
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                break
            try:
                await self._wait(left)
            except asyncio.CancelledError as cancellation:
                if cancelled is None:
                    end = monotonic() + shield
                    deadline = end if deadline is None else min(deadline, end)
                cancelled = cancellation
        if cancelled is not None:
            raise cancelled
        return condition()

    async def _wait(self, timeout: float | None) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout)
        finally:
            self._waiters.discard(waiter)


class Background:
    """Work that goes on beside its owner, until it is done or stopped.

    `stop` ends it. Where somebody else cancels its task, as a closing event loop does with all tasks, the work is
    begun once more, for as many seconds as `persistence` returns then.
    """

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, None]], persistence: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._work = work
        self._persistence = persistence
        self._stopped = False
        self.task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or its event loop is closed."""
        return self.task.done() or self.task.get_loop().is_closed()

    async def join(self) -> None:
        """Wait for its end; raises what it raised."""
        await self.task

    async def stop(self, grace: float = 0.0, hang_up: Callable[[], None] = lambda: None) -> None:
        """Give it `grace` seconds to end by itself, then hang up on it and cancel it; return when it has ended."""
        try:
            await asyncio.wait((self.task,), timeout=grace)
        finally:
            self._stopped = True
            hang_up()
            self.task.cancel()
        await asyncio.wait((self.task,))
        if not self.task.cancelled():
            self.task.exception()

    async def _run(self) -> None:
        try:
            await self._work()
        except asyncio.CancelledError:
            if self._stopped:
                raise
            seconds = self._persistence()
            if seconds <= 0:
                _forget_cancellation()
                await asyncio.sleep(_AFTERMATH)
                raise
        else:
            return
        _forget_cancellation()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._work()
        await asyncio.sleep(_AFTERMATH)


async def shielded(work: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
    """Do some work that goes on even if whoever waits for it is cancelled; at the event loop's end, so many seconds."""
    await asyncio.shield(Background(work, lambda: seconds).task)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wake(waiter: "asyncio.Future[None]", here: asyncio.AbstractEventLoop | None) -> None:
    loop = waiter.get_loop()
    if loop is here:
        _resolve(waiter)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _forget_cancellation() -> None:
    """Let the calls that the task makes from now on see that it is not being cancelled."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
