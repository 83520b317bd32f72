"""Cancels the task of a framework's run when CancelRun asks for it."""

import asyncio

from lavant.client import AsyncRunProducer


class CancelOnRequest:
    """Cancels the current task once somebody asks its run to stop; tells that cancellation apart from others.

    Call `stop` when the work is over, in whatever task, and `check` in the task itself with what ended the work.
    """

    def __init__(self, run: AsyncRunProducer, task: "asyncio.Task[object] | None") -> None:
        self._run = run
        self._task = task
        self._was_cancelling = task.cancelling() if task else 0
        self._has_cancelled = False
        self._watching = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Cancel nothing any more. Waits for nothing: nothing may come between the work's end and its run's."""
        self._watching.cancel()

    def check(self, error: BaseException | None) -> None:
        """Raise RunCancelled if it is CancelRun that ended the work."""
        if not self._has_cancelled or self._task is None or self._task.done():
            return
        self._has_cancelled = False
        others = self._task.uncancel() > self._was_cancelling
        if isinstance(error, asyncio.CancelledError) and not others:
            self._run.raise_if_cancelled()

    async def _watch(self) -> None:
        await self._run.wait_cancelled()
        if self._task is not None and not self._task.done():
            self._has_cancelled = True
            self._task.cancel()
