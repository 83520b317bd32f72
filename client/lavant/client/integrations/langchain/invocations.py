"""Invocations: which of them each of LangChain's reports belongs to, and the run or step that each of them is."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Token
from dataclasses import replace
from threading import RLock
from uuid import UUID

from langchain_core.callbacks import manager

from lavant.client import AsyncClient, AsyncRunProducer, Client, RunProducer, Usage
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.guard import Guard
from lavant.client.integrations.langchain.answers import value_of
from lavant.client.integrations.langchain.recorder import ComponentStart, InvocationRecorder
from lavant.client.integrations.recording.runs import CancelOnRequest, RunLog, RunOptions, check_client
from lavant.client.options import check_on_error
from lavant.v1.event_pb2 import Event

_log = logging.getLogger("lavant.client")

# How many ids of components are remembered that did not end before their invocation.
_MAX_IGNORED = 10_000
# The files whose coroutines LangChain makes tasks of, only to report: its own, and that of the handlers.
_REPORTING_FILES = (manager.__file__, __file__.replace("invocations", "handlers"))

Action = Callable[[InvocationRecorder], None]

# Components that are recorded, by whatever handler: the first one that gets a report of one records it.
_recorded_by: "dict[UUID, Invocations]" = {}


class LoopLog:
    """A run's producer, which belongs to an event loop, for callbacks in any thread: their order is kept."""

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
        """Queue an event; from another thread, in the loop's next iteration."""
        self.call(lambda: self._run.enqueue(event))

    def call(self, action: Callable[[], object]) -> None:
        """Call something in the loop, after everything that was queued before."""
        self._waiting.append(action)
        if _running_loop() is self._loop:
            self._catch_up()
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._catch_up)

    def _catch_up(self) -> None:
        while self._waiting:
            self._waiting.popleft()()


class Invocation:
    """An outermost call of a runnable: a run of its own, or a step of the run whose block it starts in.

    For any number of threads.
    """

    def __init__(
        self, run: AsyncRunProducer | RunProducer, log: RunLog, key: UUID, guard: Guard, outer_step_id: str | None
    ) -> None:
        self.key = key
        self.run = run
        self.owns_run = outer_step_id is None
        self.recorder = InvocationRecorder(log, guard, outer_step_id or "", is_step=not self.owns_run)
        self.cancelling: CancelOnRequest | None = None
        self._log = log
        # How often each start was reported: a handler that is given twice gets every report twice.
        self._starts: dict[UUID, int] = {}
        self._reports: dict[UUID, int] = {}
        self._guard = guard
        self._lock = RLock()

    @property
    def keys(self) -> list[UUID]:
        """The components that are open."""
        with self._lock:
            return list(self._starts)

    def start(self, start: ComponentStart) -> bool:
        """Record the start of a component; return whether this is the first report of it."""
        with self._lock:
            self._starts[start.key] = self._starts.get(start.key, 0) + 1
            if self._starts[start.key] > 1:
                return False
            with self._guard:
                self.recorder.start(start)
            return True

    def record(self, key: UUID, action: Action) -> None:
        """Record something, unless it is the repetition of a report."""
        with self._lock:
            reports = self._reports.get(key, 0)
            self._reports[key] = reports + 1
            if reports % self._starts.get(key, 1) == 0:
                with self._guard:
                    action(self.recorder)

    def finish(self, key: UUID, output: object, error: BaseException | None) -> None:
        """Record the end of a component."""
        with self._lock:
            self._starts.pop(key, None)
            self._reports.pop(key, None)
            with self._guard:
                self.recorder.finish(key, output, error)
            if key == self.key and self.owns_run:
                with self._guard:
                    self.run.output = value_of(output)

    def end_run(self, error: BaseException | None) -> None:
        """End the run, if it is the invocation's own, after all that was queued before. Never waits."""
        if self.owns_run and isinstance(self._log, LoopLog):
            self._log.call(lambda: self.run.end(error))
        elif self.owns_run:
            self.run.end(error)


class Invocations:
    """Base of the invocations of blocking and of asynchronous handlers. For any number of threads.

    A component that another handler records, such as one that is given to the call beside one in a model's
    constructor, is left to that one.
    """

    def __init__(self, client: AsyncClient | Client, name: str | None, options: RunOptions) -> None:
        check_on_error(options["on_error"])
        self.guard = Guard(options["on_error"], "a chain")
        self._client = client
        self._name = name
        self._options = options
        self._by_component: dict[UUID, Invocation] = {}
        self._ignored: dict[UUID, None] = {}
        self._tool_scopes: dict[UUID, Token[_scope.Scope | None]] = {}
        self._lock = RLock()

    def record(self, key: UUID, action: Action) -> None:
        """Record something of a component."""
        if invocation := self._by_component.get(key):
            invocation.record(key, action)

    def _start_within(self, start: ComponentStart) -> bool:
        """Record a component within an invocation; False for one that is an invocation itself.

        True also for one that is recorded by another handler, or not at all.
        """
        with self._lock:
            other = _recorded_by.get(start.key) or (_recorded_by.get(start.parent) if start.parent else None)
            if (other is not None and other is not self) or start.parent in self._ignored:
                self._ignore(start.key)
                return True
            found = self._by_component.get(start.key)
            found = found or (self._by_component.get(start.parent) if start.parent else None)
        if found is None:
            return start.key in self._ignored
        self._add(found, start)
        return True

    def _add(self, invocation: Invocation, start: ComponentStart) -> None:
        with self._lock:
            self._by_component[start.key] = invocation
            _recorded_by[start.key] = self
        if invocation.start(start) and start.kind == "tool" and (step_id := invocation.recorder.step_id(start.key)):
            # LangChain runs a tool in a copy of the context in which it reports the start, and reports the end there.
            self._tool_scopes[start.key] = _scope.enter(invocation.run, step_id)

    def _finish_within(self, key: UUID, output: object, error: BaseException | None) -> Invocation | None:
        """Record the end of a component; return its invocation if that is over with it."""
        if token := self._tool_scopes.pop(key, None):
            _scope.leave(token)
        with self._lock:
            invocation = self._by_component.pop(key, None)
            if invocation is None:
                self._ignored.pop(key, None)
                return None
            _recorded_by.pop(key, None)
        invocation.finish(key, output, error)
        if invocation.key != key:
            return None
        with self._lock:
            for left in invocation.keys:
                # What has not ended may still start more, which is no invocation of its own.
                if self._by_component.pop(left, None) is not None:
                    _recorded_by.pop(left, None)
                    self._ignore(left)
        return invocation

    def _ignore(self, key: UUID) -> None:
        """Record neither this component nor what starts in it."""
        with self._lock:
            self._ignored[key] = None
            if len(self._ignored) > _MAX_IGNORED:
                del self._ignored[next(iter(self._ignored))]

    def _open(self, start: ComponentStart) -> Invocation | None:
        """Return a new invocation, whose run has begun; None if it cannot be recorded here."""
        start = replace(start, name=self._name or start.name)
        guard = Guard(self._options["on_error"], f"the chain {start.name}")
        outer = _scope.current_run()
        if isinstance(outer, RunProducer):
            return Invocation(outer, outer, start.key, guard, _scope.current_step(outer))
        if isinstance(outer, AsyncRunProducer):
            runtime = outer._publisher._runtime
            log = outer if runtime is None else LoopLog(outer, runtime._loop)
            return Invocation(outer, log, start.key, guard, _scope.current_step(outer))
        return self._open_run(start, guard)

    def _open_run(self, start: ComponentStart, guard: Guard) -> Invocation | None:
        raise NotImplementedError

    def _start_run(self, client: "AsyncClient | Client", start: ComponentStart) -> AsyncRunProducer | RunProducer:
        return client.runs.start(
            start.name,
            input=start.input,
            run_id=str(start.key),
            conversation_id=start.conversation_id,
            model=start.model,
            **self._options,
        )


class BlockingInvocations(Invocations):
    """Waits for the network at an invocation's end, for 2 seconds at most; with `on_error="raise"` at its start too."""

    def start(self, start: ComponentStart) -> None:
        """Record the start of a component. Raises RunCancelled if CancelRun was called for its run."""
        around = self._by_component.get(start.parent) if start.parent else None
        if around is not None and start.key not in self._by_component:
            around.run.raise_if_cancelled()
        with self.guard:
            if not self._start_within(start) and (invocation := self._open(start)):
                self._add(invocation, start)

    def finish(self, key: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Record the end of a component; with an invocation's, end its run."""
        with self.guard:
            invocation = self._finish_within(key, output, error)
            if invocation is not None and invocation.owns_run and isinstance(invocation.run, RunProducer):
                invocation.end_run(error)
                invocation.run._wait_ended(error)

    def _open_run(self, start: ComponentStart, guard: Guard) -> Invocation | None:
        run = self._start_run(check_client(self._client, Client, "LavantCallbackHandler"), start)
        assert isinstance(run, RunProducer)  # noqa: S101
        run.begin()
        run._wait_created()
        return Invocation(run, run, start.key, guard, None)


class AsyncInvocations(Invocations):
    """Waits for the network at an invocation's end, for 2 seconds at most; with `on_error="raise"` at its start too.

    Invocations belong to the event loop of the client. What runs in other threads is recorded as well; an invocation
    there too, once the handler knows the loop.
    """

    def __init__(self, client: AsyncClient | Client, name: str | None, options: RunOptions) -> None:
        super().__init__(client, name, options)
        self._loop = _running_loop()

    async def start(self, start: ComponentStart) -> None:
        """Record the start of a component."""
        with self.guard:
            if self._start_within(start):
                return
            invocation = self._open(start)
            if invocation is None:
                self._ignore(start.key)
                return
            if invocation.owns_run and isinstance(invocation.run, AsyncRunProducer):
                try:
                    await invocation.run._wait_created()
                except BaseException:
                    self._ignore(start.key)
                    raise
            self._add(invocation, start)
            self._watch(invocation, start)

    async def finish(self, key: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Record the end of a component; with an invocation's, end its run. Raises RunCancelled after CancelRun."""
        invocation = self._by_component.get(key)
        try:
            with self.guard:
                if (ended := self._finish_within(key, output, error)) is not None:
                    ended.end_run(error)
                    if ended.owns_run and isinstance(ended.run, AsyncRunProducer) and self._is_in_loop():
                        await ended.run._wait_ended(error)
        finally:
            if invocation is not None and invocation.key == key and invocation.cancelling is not None:
                invocation.cancelling.stop()
                invocation.cancelling.check(error)

    def _open_run(self, start: ComponentStart, guard: Guard) -> Invocation | None:
        client = check_client(self._client, AsyncClient, "AsyncLavantCallbackHandler")
        here = None if _is_between_loops() else _running_loop()
        if self._loop is None or self._loop.is_closed():
            self._loop = here
        if self._loop is None or (here is not None and here is not self._loop and not self._loop.is_running()):
            _log.warning("%s is not recorded: it was not called in the event loop of the client", start.name)
            return None
        run = self._start_run(client, start)
        assert isinstance(run, AsyncRunProducer)  # noqa: S101
        log = LoopLog(run, self._loop)
        log.call(run.begin)
        return Invocation(run, log, start.key, guard, None)

    def _is_in_loop(self) -> bool:
        return self._loop is not None and _running_loop() is self._loop

    def _watch(self, invocation: Invocation, start: ComponentStart) -> None:
        if not self._is_in_loop() or not isinstance(invocation.run, AsyncRunProducer):
            return
        # LangChain reports the start of models that complete text from tasks of its own, which end at once.
        task = None if _is_reporting(asyncio.current_task()) else asyncio.current_task()
        invocation.cancelling = CancelOnRequest(invocation.run, task)
        if task is not None and start.kind != "chain":
            task.add_done_callback(lambda ended: self._finish_with(invocation, ended))

    def _finish_with(self, invocation: Invocation, task: "asyncio.Task[object]") -> None:
        """End an invocation whose end was not reported: LangChain does not report that a model or a tool was cancelled.

        A stream may continue in another task.
        """
        is_open = self._by_component.get(invocation.key) is invocation
        if is_open and (task.cancelled() or not invocation.recorder.is_streamed):
            cut = asyncio.CancelledError("cut off")
            with self.guard:
                self._finish_within(invocation.key, None, cut)
                invocation.end_run(cut)
            if invocation.cancelling is not None:
                invocation.cancelling.stop()


def _is_reporting(task: "asyncio.Task[object] | None") -> bool:
    """Return whether LangChain made a task only to report something."""
    code = getattr(task.get_coro(), "cr_code", None) if task else None
    return code is not None and code.co_filename in _REPORTING_FILES


def _is_between_loops() -> bool:
    """Return whether LangChain runs this callback of a blocking call in a loop of its own, which ends with it."""
    task = asyncio.current_task()
    return _is_reporting(task) and asyncio.all_tasks() == {task}


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
