"""The roots of an asynchronous handler: they belong to the event loop of its client."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from langchain_core.callbacks.manager import _achat_model_start_fallback, ahandle_event

from lavant.client import AsyncClient, AsyncRunProducer, RunProducer, _scope
from lavant.client.integrations._cancelling import CancelOnRequest
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_root import LoopLog, Root, is_running
from lavant.client.integrations._langchain_roots import Roots

_HANDLER = str(Path(__file__).with_name("_langchain_async.py"))
_log = logging.getLogger("lavant.client")


class AsyncRoots(Roots):
    """Waits for the network at a root's end only, for 2 seconds at most; with `on_error="raise"` at its beginning too.

    What runs in other threads is recorded as well, a root there too once the handler knows its event loop.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._loop = _running_loop()
        self._logs: dict[UUID, LoopLog] = {}
        self._cancelling: dict[UUID, CancelOnRequest] = {}

    async def begin(self, begun: Begun) -> None:
        """Something began: a root, if nothing known is around it."""
        with self.guard:
            if self.begin_within(begun):
                return
            root = self._open(begun)
            if root is None:
                self.ignore(begun.key)
                return
            if root.owns_run and isinstance(root.run, AsyncRunProducer):
                try:
                    await root.run._wait_created()
                except BaseException:
                    self._logs.pop(begun.key)
                    self.ignore(begun.key)
                    raise
            self.add_root(root, begun)
            self._watch(root, begun)

    async def end(self, run_id: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Something ended: with a root, its run. Raises RunCancelled if it is CancelRun that ended it."""
        try:
            with self.guard:
                await self._end(run_id, output, error)
        finally:
            if (cancelling := self._cancelling.pop(run_id, None)) is not None:
                cancelling.stop()
                cancelling.check(error)

    async def _end(self, run_id: UUID, output: object, error: BaseException | None) -> None:
        root = self.end_within(run_id, output, error)
        if root is None or not root.owns_run:
            return
        log, run = self._logs.pop(run_id), root.run
        log.call(lambda: run.end(error))
        if isinstance(run, AsyncRunProducer) and self._loop is not None and is_running(self._loop):
            await run._wait_ended(error)

    def _open(self, begun: Begun) -> Root | None:
        begun = replace(begun, name=self.named(begun))
        guard = Guard(self.on_error, f"the chain {begun.name}")
        outer = _scope.current_run()
        if isinstance(outer, AsyncRunProducer | RunProducer):
            return joined(outer, begun, guard)
        if not isinstance(self.client, AsyncClient):
            raise TypeError(
                f"AsyncLavantCallbackHandler needs an AsyncClient, not {type(self.client).__name__}; "
                "LavantCallbackHandler takes a Client"
            )
        here = None if _is_between_loops() else _running_loop()
        self._loop = here if self._loop is None or self._loop.is_closed() else self._loop
        if self._loop is None or (here is not None and here is not self._loop and not self._loop.is_running()):
            _log.warning("%s is not recorded: it was not called in the event loop of the client", begun.name)
            return None
        run = self.start(begun)
        assert isinstance(run, AsyncRunProducer)  # noqa: S101
        log = self._logs[begun.key] = LoopLog(run, self._loop)
        log.call(run.begin)
        return Root(run, log, begun, guard, owns_run=True)

    def _watch(self, root: Root, begun: Begun) -> None:
        if self._loop is None or not is_running(self._loop) or not isinstance(root.run, AsyncRunProducer):
            return
        task = _calling_task()
        self._cancelling[begun.key] = CancelOnRequest(root.run, task)
        if task is not None and begun.kind != "chain":
            task.add_done_callback(lambda ended: self._look_for(root, ended))

    def _look_for(self, root: Root, task: "asyncio.Task[object]") -> None:
        # Nobody says that a model or a tool was cancelled. A stream may go on in another task.
        if self.root_of(root.key) is root and (task.cancelled() or not root.recorder.is_streamed):
            cut = asyncio.CancelledError("cut off")
            with self.guard:
                self.end_within(root.key, None, cut)
                if (log := self._logs.pop(root.key, None)) is not None:
                    log.call(lambda: root.run.end(cut))
            if (cancelling := self._cancelling.pop(root.key, None)) is not None:
                cancelling.stop()


def joined(outer: AsyncRunProducer | RunProducer, begun: Begun, guard: Guard) -> Root:
    """Return a root that is a step of the run whose block it begins in."""
    step_id = _scope.current_step(outer)
    if isinstance(outer, RunProducer):
        return Root(outer, outer, begun, guard, owns_run=False, outer_step_id=step_id)
    home = outer._publisher._home
    loop = home._loop if home is not None else None
    log = outer if loop is None else LoopLog(outer, loop)
    return Root(outer, log, begun, guard, owns_run=False, outer_step_id=step_id)


def _calling_task() -> "asyncio.Task[object] | None":
    task = asyncio.current_task()
    code = getattr(task.get_coro(), "cr_code", None) if task else None
    # LangChain reports the beginning of models that complete text from tasks of its own, which end at once.
    is_reporting = code is not None and code.co_filename == ahandle_event.__code__.co_filename
    return None if is_reporting else task


def _is_between_loops() -> bool:
    """Tell whether LangChain runs this callback of a blocking call in a loop that ends with it."""
    task = asyncio.current_task()
    code = getattr(task.get_coro(), "cr_code", None) if task else None
    return code is not None and (code is _achat_model_start_fallback.__code__ or code.co_filename == _HANDLER)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
