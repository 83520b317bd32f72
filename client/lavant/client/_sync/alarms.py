"""Things to do at a time, in a thread of their own."""

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count

_SWEPT_ABOVE = 64


class Alarm:
    """Something to do, unless cancelled before."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Forget it. It may be going on already."""
        self.action = None


class Alarms:
    """Calls actions when their time comes, from one thread, which begins with the first alarm.

    Actions must neither block nor raise.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = count()
        self._sweep_at = _SWEPT_ABOVE
        self._thread: threading.Thread | None = None

    def set(self, seconds: float, action: Callable[[], None]) -> Alarm:
        """Set an alarm."""
        alarm = Alarm(action)
        with self._changed:
            entry = (time.monotonic() + seconds, next(self._order), alarm)
            heapq.heappush(self._heap, entry)
            if len(self._heap) > self._sweep_at:
                self._sweep()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lavant-alarms", daemon=True)
                self._thread.start()
            elif self._heap[0] is entry:
                self._changed.notify()
        return alarm

    def _sweep(self) -> None:
        """Drop what was cancelled: most alarms are, long before their time."""
        self._heap = [entry for entry in self._heap if entry[2].action is not None]
        heapq.heapify(self._heap)
        self._sweep_at = max(_SWEPT_ABOVE, 2 * len(self._heap))

    def _run(self) -> None:
        while True:
            with self._changed:
                left = self._heap[0][0] - time.monotonic() if self._heap else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                _, _, alarm = heapq.heappop(self._heap)
            if (action := alarm.action) is not None:
                action()
