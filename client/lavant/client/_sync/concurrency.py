"""What depends on threads: time, waiting, waking, work in the background."""

import os
import threading
import time
from collections.abc import Callable
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, NoReturn

from lavant.client._sync.alarms import Alarm, Alarms

monotonic = time.monotonic
Lock = threading.RLock

_alarms = Alarms()


class Clock:
    """Time as the client knows it. A test has one of its own."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def call_in(self, seconds: float, action: Callable[[], None]) -> Alarm:
        """Call something in so many seconds, in another thread, unless the alarm is cancelled before."""
        return _alarms.set(seconds, action)


class UsageHints:
    """Base of what blocks: says so to those who use it as if it were asynchronous."""

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


current_reader = threading.get_ident


def call_handler(handler: Callable[[Any], object], argument: object, timeout: float) -> None:  # noqa: ARG001
    """Call a handler of the user's. It takes the time that it takes: only asynchronous ones can be bounded."""
    result = handler(argument)
    if iscoroutine(result):
        result.close()
        raise TypeError(f"{handler!r} is asynchronous; give it to a stream of AsyncClient")


class Home:
    """The process that a client's channels and threads belong to: this one."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def is_gone(self) -> bool:
        """Whether this is another process: a fork takes neither threads nor connections with it."""
        return self._process != os.getpid()

    def check(self) -> None:
        """Do nothing: any thread may use a blocking client."""

    def call(self, action: Callable[[], None]) -> None:
        """Call something now."""
        action()

    def run_at_exit(self, work: Callable[[], None], timeout: float) -> None:  # noqa: ARG002
        """Do some work while the process exits; it bounds its time itself."""
        work()


class Signal:
    """Wakes those who wait for a change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def renew(self) -> None:
        """Forget who waits, in a process that was forked from theirs."""
        self._changed = threading.Condition()

    def notify(self) -> None:
        """Tell all who wait to look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None, *, shield: float = 0.0) -> bool:  # noqa: ARG002
        """Wait until a condition holds; after `timeout` seconds tell whether it does. Nothing to be shielded from."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)


class Background:
    """Work that goes on beside its owner, until it is done or stopped.

    No signal and no exception of another thread ends it, so it need not persist.
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
        """Wait for its end; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self, grace: float = 0.0, hang_up: Callable[[], None] = lambda: None) -> None:
        """Give it `grace` seconds to end by itself, then hang up on it until it does; return when it has ended."""
        self._thread.join(grace)
        while self._thread.is_alive():
            hang_up()
            self._thread.join(_PERSISTENCE)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error


def shielded(work: Callable[[], None], seconds: float) -> None:  # noqa: ARG001
    """Do some work: nothing but KeyboardInterrupt cuts it short."""
    work()


# A thread cannot be cancelled, only what it waits for; it may just have begun to wait for something else.
_PERSISTENCE = 0.05
