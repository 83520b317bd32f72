"""A root of LangChain's at work: its run, the way of its callbacks into it, and CancelRun's way back."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from langchain_core.callbacks.manager import ahandle_event

from lavant.client import AsyncRunProducer
from lavant.client._async.concurrency import Background
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_recorder import RootRecorder, value_of
from lavant.client.integrations._pydantic_ai_guard import Guard

_log = logging.getLogger(__name__)

Action = Callable[[RootRecorder], None]


class Root:
    """Belongs to the event loop and the task that it begins in; `record` may be called in any thread.

    It is the run itself if `owns_run`, else a step of it. `on_lost` is told if nobody will say that it ended.
    Unless `strict`, what cannot be recorded is logged.
    """

    def __init__(
        self,
        run: AsyncRunProducer,
        begun: Begun,
        on_lost: "Callable[[Root], None]",
        *,
        owns_run: bool,
        outer_step_id: str = "",
        strict: bool = False,
    ) -> None:
        self.key: UUID = begun.key
        self.run = run
        self._owns_run = owns_run
        self._strict = strict
        self._on_lost = on_lost
        guard = Guard("raise" if strict else "log", f"the chain {begun.name}")
        self._recorder = RootRecorder(run, guard, outer_step_id, is_step=not owns_run)
        self._loop = asyncio.get_running_loop()
        self._actions: deque[Action] = deque()
        self._task = _calling_task()
        self._was_cancelling = self._task.cancelling() if self._task else 0
        self._has_cancelled = self._has_ended = False
        self._watching = Background(self._cancel_when_asked)
        self.record(lambda recorder: recorder.begin(begun))
        if self._task is not None and begun.kind != "chain":
            self._task.add_done_callback(self._look_for)

    def record(self, action: Action) -> None:
        """Record something, after all that was told before; from another thread, as soon as the loop gets to it."""
        self._actions.append(action)
        if is_running(self._loop):
            self._catch_up()
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._catch_up)

    def step_of(self, key: UUID) -> str:
        """Return the id of a step that was begun; empty while it is not recorded yet."""
        return self._recorder.step_of(key)

    async def finish(self, output: object, error: BaseException | None) -> None:
        """End it, and its run with it. Raises RunCancelled if it is CancelRun that ended it."""
        self._has_ended = True
        if self._task is not None:
            self._task.remove_done_callback(self._look_for)
        await self._watching.stop()
        self.record(lambda recorder: recorder.end(self.key, output, error))
        if self._owns_run:
            self.run.output = value_of(output)
            await self.run.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
        if self._has_cancelled and self._task is not None and not self._task.done():
            others = self._task.uncancel() > self._was_cancelling
            if isinstance(error, asyncio.CancelledError) and not others:
                self.run.raise_if_cancelled()

    async def _cancel_when_asked(self) -> None:
        await self.run.wait_cancelled()
        if self._task is not None and not self._has_ended:
            self._has_cancelled = True
            self._task.cancel()

    def _look_for(self, task: "asyncio.Task[object]") -> None:
        # Nobody says that a model or a tool was cancelled. A stream may go on in another task.
        if task.cancelled() or not self._recorder.is_streamed:
            self._on_lost(self)

    def _catch_up(self) -> None:
        while self._actions:
            action = self._actions.popleft()
            try:
                action(self._recorder)
            except Exception:
                if self._strict:
                    raise
                _log.warning("run %s: something could not be recorded", self.run.id, exc_info=True)


def _calling_task() -> "asyncio.Task[object] | None":
    task = asyncio.current_task()
    code = getattr(task.get_coro(), "cr_code", None) if task else None
    # LangChain reports the beginning of models that complete text from tasks of its own, which end at once.
    is_reporting = code is not None and code.co_filename == ahandle_event.__code__.co_filename
    return None if is_reporting else task


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether it is this loop that runs in this thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
