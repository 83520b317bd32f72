"""The thread that records spans, in order. No thread that reports spans waits for it."""

import logging
import threading
from collections import deque
from collections.abc import Callable

_log = logging.getLogger(__name__)

Action = Callable[[], None]


class SpanWorker:
    """Runs actions one after the other in a daemon thread, which starts with the first one.

    Its queue holds at most `limit` of them, besides those that are `urgent`. `tick` is called after each action, and
    while there is none after as many seconds as it returned the last time; None: not before the next action. With
    `raises`, `wait` raises the first exception of an action, else exceptions are logged.
    """

    def __init__(self, limit: int, tick: Callable[[], float | None], *, raises: bool = False) -> None:
        self._limit = limit
        self._tick = tick
        self._raises = raises
        self._actions: deque[Action] = deque()
        # Not a plain lock: a span may end while garbage is collected, in the midst of another one's start.
        self._changed = threading.Condition(threading.RLock())
        self._submitted = self._done = 0
        self._closed = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def submit(self, action: Action, *, urgent: bool = False) -> bool:
        """Queue an action; return False if the queue is full or closed."""
        with self._changed:
            if self._closed or (len(self._actions) >= self._limit and not urgent):
                return False
            self._actions.append(action)
            self._submitted += 1
            if self._thread is None or not self._thread.is_alive():  # or this process was forked
                self._thread = threading.Thread(target=self._work, name="lavant-spans", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """Accept no more actions; those that are queued are still run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until the actions that are queued by now have run; return False after `timeout` seconds."""
        with self._changed:
            submitted = self._submitted
            done = self._changed.wait_for(lambda: self._done >= submitted, timeout)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return done

    def _work(self) -> None:
        pause: float | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._actions or self._closed, pause)
                if not self._actions and self._closed:
                    return
                action = self._actions.popleft() if self._actions else None
            failure = self._do(action) if action else None
            pause = self._next()
            with self._changed:
                self._failure = self._failure or failure
                self._done += action is not None
                self._changed.notify_all()

    def _next(self) -> float | None:
        try:
            return self._tick()
        except Exception:
            _log.warning("a span could not be recorded", exc_info=True)
            return None

    def _do(self, action: Action) -> Exception | None:
        try:
            action()
        except Exception as failure:
            if self._raises:
                return failure
            _log.warning("a span could not be recorded", exc_info=True)
        return None
