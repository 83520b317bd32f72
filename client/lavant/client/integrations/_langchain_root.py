"""A root of LangChain's at work: its run, or its step of one, and the way of its callbacks' events there."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from uuid import UUID

from lavant.client import AsyncRunProducer, RunProducer, Usage
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_recorder import RootRecorder, Run, value_of
from lavant.v1.event_pb2 import Event

Action = Callable[[RootRecorder], None]


class Root:
    """The run itself if `owns_run`, else a step of it. For any number of threads."""

    def __init__(
        self,
        run: AsyncRunProducer | RunProducer,
        log: Run,
        begun: Begun,
        guard: Guard,
        *,
        owns_run: bool,
        outer_step_id: str = "",
    ) -> None:
        self.key = begun.key
        self.run = run
        self.owns_run = owns_run
        self.recorder = RootRecorder(log, guard, outer_step_id, is_step=not owns_run)
        # How often each beginning was reported: a handler that is given twice hears everything twice.
        self._reported: dict[UUID, int] = {}
        self._heard: dict[UUID, int] = {}
        self._guard = guard
        self._lock = RLock()

    @property
    def keys(self) -> list[UUID]:
        """LangChain's runs at work in it."""
        with self._lock:
            return list(self._reported)

    def begin(self, begun: Begun) -> bool:
        """Something began in it; tell whether this is the first report of it."""
        with self._lock:
            self._reported[begun.key] = self._reported.get(begun.key, 0) + 1
            if self._reported[begun.key] > 1:
                return False
            with self._guard:
                self.recorder.begin(begun)
            return True

    def record(self, key: UUID, action: Action) -> None:
        """Record something, unless it is the repetition of a report."""
        with self._lock:
            heard, reported = self._heard.get(key, 0), self._reported.get(key, 1)
            self._heard[key] = heard + 1
            if heard % reported == 0:
                with self._guard:
                    action(self.recorder)

    def end(self, key: UUID, output: object, error: BaseException | None) -> None:
        """Something in it ended."""
        with self._lock:
            self._reported.pop(key, None)
            self._heard.pop(key, None)
            with self._guard:
                self.recorder.end(key, output, error)
            if key == self.key and self.owns_run:
                with self._guard:
                    self.run.output = value_of(output)

    def step_of(self, key: UUID) -> str:
        """Return the id of a step at work; empty: there is none."""
        return self.recorder.step_of(key)


class LoopLog:
    """A run's producer, which belongs to an event loop, for callbacks in any thread: what they do keeps its order."""

    def __init__(self, run: AsyncRunProducer, loop: asyncio.AbstractEventLoop) -> None:
        self._run = run
        self._loop = loop
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def usage(self) -> Usage | None:
        """The run's usage."""
        return self._run.usage

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._run.usage = usage

    def enqueue(self, event: Event) -> None:
        """Queue an event; from another thread, as soon as the loop gets to it."""
        self.call(lambda: self._run.enqueue(event))

    def call(self, action: Callable[[], object]) -> None:
        """Do something with the run, after all that was asked for before."""
        self._waiting.append(action)
        if is_running(self._loop):
            self._catch_up()
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._catch_up)

    def _catch_up(self) -> None:
        while self._waiting:
            self._waiting.popleft()()


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether it is this loop that runs in this thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
