"""Steps of agents, model requests and tools, which others may outlive: a tool can leave an agent at work."""

from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred

from lavant.client import AsyncRunProducer, Usage, _payloads, _scope
from lavant.client._arguments import step_kind
from lavant.client._async.concurrency import monotonic
from lavant.client._ids import new_id
from lavant.client.integrations._guard import Guard
from lavant.v1.event_pb2 import Event

_innermost: "ContextVar[NestedStep | None]" = ContextVar("lavant_pydantic_ai_step", default=None)


class NestedStep:
    """A step, for the length of a block, that is finished only when all steps begun in it are.

    What begins after it was finished, in a task that inherited it, belongs to the step around it. The step
    fails if the block raises, but not if it defers its work. Set `output` and `usage` to report them, `failure`
    if the step failed with another error than the one that the block raises. Never waits for room in the queue.

    The framework unwinds the tasks of a cancelled agent only after the agent's own hooks: `end` finishes the step
    before, and calls `on_end` first, for what is open in it.
    """

    def __init__(
        self,
        run: AsyncRunProducer,
        guard: Guard,
        name: str,
        kind: str,
        input_value: object = None,
        input_json: str | None = None,
    ) -> None:
        self.id = new_id()
        self.output: Any = None
        self.usage: Usage | None = None
        self.failure: Exception | None = None
        self.on_end: Callable[[BaseException], None] | None = None
        self.is_finished = False
        self._run = run
        self._guard = guard
        self._name, self._kind = name, step_kind(kind)
        self._input, self._input_json = input_value, input_json
        self._attempt = 1
        self._parent_id = ""
        self._parent: NestedStep | None = None
        self._outer = _innermost.get()
        self._within: dict[NestedStep, None] = {}
        self._began = self._seconds = 0.0
        self._error: BaseException | None = None
        self._is_left = False

    def begin_again(self) -> None:
        """Begin the next attempt, after one that ended with `failure`: readers forget what that one did."""
        with self._guard:
            self._publish(self._finished(self.failure, monotonic() - self._began))
            self._attempt += 1
            self.failure = self.usage = None
            self._began = monotonic()
            self._publish(self._started())

    def end(self, error: BaseException) -> None:
        """Finish the step and all within it now; whoever is at work in it leaves it later."""
        for step in list(self._within):
            step.end(error)
        if not self.is_finished:
            if self.on_end is not None:
                with self._guard:
                    self.on_end(error)
            self._leave(error)
            self._within.clear()
            self._finish_if_last()

    async def __aenter__(self) -> Self:
        self._began = monotonic()
        with self._guard:
            await self._run.end_message()
        self._parent_id = _open_step(self._run, self._outer)
        self._parent = _open_parent(self._run, self._outer)
        with self._guard:
            self._publish(self._started())
        if self._parent is not None:
            self._parent._within[self] = None
        self._scope = _scope.enter(self._run, self.id)
        self._token = _innermost.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(None if isinstance(error, ApprovalRequired | CallDeferred) else error)
        try:
            with self._guard:
                await self._run.end_message()
        finally:
            _innermost.reset(self._token)
            _scope.leave(self._scope)
            self._finish_if_last()

    def _leave(self, error: BaseException | None) -> None:
        if not self._is_left:
            self._is_left = True
            self._seconds = monotonic() - self._began
            self._error = self.failure or error

    def _finish_if_last(self) -> None:
        step: NestedStep | None = self
        while step is not None and step._is_left and not step._within and not step.is_finished:
            step.is_finished = True
            with self._guard:
                step._publish(step._finished(step._error, step._seconds))
            if step._parent is not None:
                step._parent._within.pop(step, None)
            step = step._parent

    def _started(self) -> Event:
        started = _payloads.step_started(
            self.id, self._parent_id, self._name, self._kind, self._input, attempt=self._attempt
        )
        if self._input_json is not None:
            started.step_started.input_json = self._input_json
        return started

    def _finished(self, error: BaseException | None, seconds: float) -> Event:
        return _payloads.step_finished(self.id, self._parent_id, self.output, error, self.usage, seconds)

    def _publish(self, event: Event) -> None:
        scope = _scope.enter(self._run, self._parent_id)
        try:
            self._run.enqueue(event)
        finally:
            _scope.leave(scope)


def _open_step(run: AsyncRunProducer, step: NestedStep | None) -> str:
    step_id = _scope.current_step(run)
    while step is not None:
        if step.id == step_id and step.is_finished:
            step_id = step._parent_id
        step = step._outer
    return step_id


def _open_parent(run: AsyncRunProducer, step: NestedStep | None) -> NestedStep | None:
    while step is not None and (step._run is not run or step.is_finished):
        step = step._outer
    return step
