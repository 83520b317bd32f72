"""Primitives that depend on asyncio: clock, locks, signals, background tasks."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    from lavant.client._async.api.runs import AsyncRuns
    from lavant.client._async.transport import Connection

_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)
monotonic = time.monotonic
# Seconds after which gRPC has reported the end of a call that was cancelled. Where the event loop is closed by then,
# it logs an error.
_AFTERMATH = 0.05


class Lock:
    """Lock without effect: between two awaits no other task runs."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Clock:
    """Source of time, replaced in tests."""

    def monotonic(self) -> float:
        """Return seconds that never decrease."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return a block that is cancelled after `seconds`, and raises TimeoutError then."""
        return asyncio.timeout(seconds)


class UsageHints:
    """Base of asynchronous objects: blocking use raises TypeError with the right form."""

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


class Closing(UsageHints):
    """Base of what is closed at the end of its `async with` block."""

    async def aclose(self) -> None:
        """Close it. May be called again."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def current_reader() -> int:
    """Return an identifier of the current task."""
    return id(asyncio.current_task())


async def next_turn() -> None:
    """Let all other tasks run that are ready."""
    await asyncio.sleep(0)


def is_being_cancelled() -> bool:
    """Return whether the current task is being cancelled, not only the call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def call_handler(handler: Callable[[Any], object], argument: object, timeout: float) -> None:
    """Call a user's handler. An asynchronous one that exceeds `timeout` seconds raises TimeoutError."""
    result = handler(argument)
    if isawaitable(result):
        async with asyncio.timeout(timeout):
            await result


TokenSource: TypeAlias = Callable[[], "str | Awaitable[str]"]  # returns a bearer token
TOKEN_LIMIT = 30.0  # seconds to obtain a token


async def obtain(source: TokenSource) -> str:
    """Call a user's function, which may be asynchronous, and return its result. Raises TimeoutError after 30 s."""
    result = source()
    if not isawaitable(result):
        return result
    async with asyncio.timeout(TOKEN_LIMIT):
        return await result


class SingleFlight:
    """Work that all who need it at the same time wait for together; it continues if one of them is cancelled."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work, or wait for the one under way. Raises what it raises."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._task = asyncio.create_task(work())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # which nobody may wait for
        await asyncio.shield(task)


class Runtime:
    """The event loop that a client's channels and tasks belong to: the one that is running at its creation.

    Raises RuntimeError without a running event loop.
    """

    def __init__(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("no event loop is running: AsyncClient needs one; use Client in blocking code") from None
        self._process = os.getpid()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can run there: the loop is closed, or the process was forked since."""
        return self._loop.is_closed() or self._process != os.getpid()

    def check(self) -> None:
        """Raise RuntimeError in another event loop."""
        if _running_loop() is not self._loop:
            raise RuntimeError(
                "this AsyncClient is in use in another event loop: create one AsyncClient per event loop, "
                "or use Client, which may be used from any thread"
            )

    def call(self, action: Callable[[], None]) -> None:
        """Call `action` in the event loop: at once, if it runs in this thread."""
        if _running_loop() is self._loop:
            action()
        else:
            self._loop.call_soon_threadsafe(action)

    def run_at_exit(self, work: Callable[[], Coroutine[Any, Any, None]], timeout: float) -> None:
        """Run a coroutine while the process exits: in this event loop, or in a new one if it is closed."""
        if self._loop.is_closed():
            asyncio.run(work())
        elif self._loop.is_running():
            asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout)
        else:
            self._loop.run_until_complete(work())


class Signal:
    """Wakes tasks that wait for a condition. `notify` may be called from any thread, the rest in one event loop."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def renew(self) -> None:
        """Forget the waiters, in a process that was forked from theirs."""
        self._waiters = set()

    def notify(self) -> None:
        """Let all waiters check their conditions. Never blocks."""
        if self._waiters:
            here = _running_loop()
            for waiter in tuple(self._waiters):
                _wake(waiter, here)

    async def wait_for(
        self, condition: Callable[[], bool], timeout: float | None = None, *, shield: float = 0.0
    ) -> bool:
        """Wait until a condition holds, up to `timeout` seconds. Return whether it holds.

        A cancellation, however often it is repeated, takes effect after another `shield` seconds at most.
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
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        timer = None if timeout is None else loop.call_later(timeout, _resolve, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


class Background:
    """Work in a task of its own, until it is done or stopped.

    If somebody else cancels the task, as an event loop that closes does with all tasks, the work is started once more,
    for as many seconds as `persistence` returns then.
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
        """Wait for its end. Raises what it raised."""
        await self.task

    async def stop(self, grace: float = 0.0, abort: Callable[[], None] = lambda: None) -> None:
        """Wait `grace` seconds for its end, then call `abort` and cancel it. Returns after its end."""
        try:
            await asyncio.wait((self.task,), timeout=grace)
        finally:
            self._stopped = True
            abort()
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
    """Run a coroutine that continues if its caller is cancelled, and for `seconds` when the event loop closes."""
    await asyncio.shield(Background(work, lambda: seconds).task)


class EvaluatorWork(Protocol[_Result_co]):
    """Work that needs pydantic-evals, and with it an event loop."""

    async def run(self, connection: "Connection", runs: "AsyncRuns") -> _Result_co:
        """Do the work; return its result."""
        ...


async def run_evaluators(
    work: EvaluatorWork[_Result],
    connection: "Connection",
    runs: "AsyncRuns",
    client_arguments: Mapping[str, Any],  # noqa: ARG001
) -> _Result:
    """Do work that needs pydantic-evals, in the client's own event loop. Returns its result."""
    return await work.run(connection, runs)


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
    """Uncancel the current task, so that the calls it makes from now on are not cut short."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
