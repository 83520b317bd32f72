"""Primitives that depend on threads: clock, locks, signals, background threads."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from inspect import iscoroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, TypeVar

from lavant.client._sync.alarms import Alarm, Alarms

if TYPE_CHECKING:
    from lavant.client._async.concurrency import EvaluatorWork
    from lavant.client._sync.api.runs import Runs
    from lavant.client._sync.transport import Connection

_Result = TypeVar("_Result")

monotonic = time.monotonic
Lock = threading.RLock

_alarms = Alarms()


class Clock:
    """Source of time, replaced in tests."""

    def monotonic(self) -> float:
        """Return seconds that never decrease."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def call_in(self, seconds: float, action: Callable[[], None]) -> Alarm:
        """Call `action` after `seconds`, in another thread, unless the alarm is cancelled before."""
        return _alarms.set(seconds, action)


class UsageHints:
    """Base of blocking objects: asynchronous use raises TypeError with the right form."""

    if not TYPE_CHECKING:  # To type checkers, it has none of these.

        def __aenter__(self) -> NoReturn:
            raise self._hint("`async with`", "`with`")

        async def __aexit__(self, *_: object) -> None:
            pass

        def __aiter__(self) -> NoReturn:
            raise self._hint("`async for`", "`for`")

        def _hint(self, wrong: str, right: str) -> TypeError:
            name = type(self).__name__
            return TypeError(f"{name} cannot be used with {wrong}: use {right}, or lavant.client.AsyncClient")


class Closing(UsageHints):
    """Base of what is closed at the end of its `with` block."""

    def close(self) -> None:
        """Close it. May be called again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


current_reader = threading.get_ident


def next_turn() -> None:
    """Let another thread run, if one is ready."""
    time.sleep(0)


def call_handler(handler: Callable[[Any], object], argument: object, timeout: float) -> None:  # noqa: ARG001
    """Call a user's handler, without a limit of time: only asynchronous ones can be stopped."""
    result = handler(argument)
    if iscoroutine(result):
        result.close()
        raise TypeError(f"{handler!r} is asynchronous: use a stream of AsyncClient")


TokenSource: TypeAlias = Callable[[], str]  # returns a bearer token


def obtain(source: TokenSource) -> str:
    """Call a user's function and return its result, without a limit of time."""
    result = source()
    if iscoroutine(result):  # which is refused, as everything that is not text
        result.close()
    return result


class SingleFlight:
    """Work that one thread does at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def run(self, work: Callable[[], None]) -> None:
        """Do the work after any other. Raises what it raises."""
        with self._lock:
            work()


class Runtime:
    """The process that a client's channels and threads belong to: this one."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def is_closed(self) -> bool:
        """Whether this is another process: threads and connections do not exist in a fork."""
        return self._process != os.getpid()

    def check(self) -> None:
        """Do nothing: any thread may use a blocking client."""

    def call(self, action: Callable[[], None]) -> None:
        """Call `action` at once."""
        action()

    def run_at_exit(self, work: Callable[[], None], timeout: float) -> None:  # noqa: ARG002
        """Do the work while the process exits. The work bounds its time itself."""
        work()


class Signal:
    """Wakes threads that wait for a condition."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def renew(self) -> None:
        """Forget the waiters, in a process that was forked from theirs."""
        self._changed = threading.Condition()

    def notify(self) -> None:
        """Let all waiters check their conditions."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None, *, shield: float = 0.0) -> bool:  # noqa: ARG002
        """Wait until a condition holds, up to `timeout` seconds. Return whether it holds. `shield` has no effect."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)


class Background:
    """Work in a thread of its own, until it is done or stopped.

    Nothing else ends a thread, so `persistence` has no effect.
    """

    def __init__(self, work: Callable[[], None], persistence: Callable[[], float] = lambda: 0.0) -> None:  # noqa: ARG002
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lavant", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for its end. Raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self, grace: float = 0.0, abort: Callable[[], None] = lambda: None) -> None:
        """Wait `grace` seconds for its end, then call `abort` until it ends. Returns after its end."""
        self._thread.join(grace)
        while self._thread.is_alive():
            abort()
            self._thread.join(_PERSISTENCE)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error


def shielded(work: Callable[[], None], seconds: float) -> None:  # noqa: ARG001
    """Do the work. Only KeyboardInterrupt ends it early."""
    work()


def run_evaluators(
    work: "EvaluatorWork[_Result]",
    _connection: "Connection",
    _runs: "Runs",
    client_arguments: Mapping[str, Any],
) -> _Result:
    """Do work that needs pydantic-evals, in an event loop and over a connection of its own. Returns its result.

    Raises RuntimeError in a thread whose event loop is running.
    """
    from lavant.client._async.client import AsyncClient

    async def run() -> _Result:
        async with AsyncClient(**client_arguments) as client:
            return await work.run(client._connection, client.runs)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run())
    raise RuntimeError("an event loop is running in this thread: await AsyncClient's method instead")


# A thread cannot be cancelled, only what it waits for; it may just have begun to wait for something else.
_PERSISTENCE = 0.05
