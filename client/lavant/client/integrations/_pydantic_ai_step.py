"""Steps of agents and tools, which others may outlive: a tool can leave an agent at work in the background."""

from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred

from lavant.client import AsyncRunProducer, Usage, _payloads, _scope
from lavant.client._arguments import step_kind
from lavant.client._async.concurrency import monotonic
from lavant.client._ids import new_id
from lavant.v1.event_pb2 import Event

_innermost: "ContextVar[NestedStep | None]" = ContextVar("lavant_pydantic_ai_step", default=None)


class NestedStep:
    """A step, for the length of a block, that is finished only when all steps begun in it are.

    What begins after it was finished, in a task that inherited it, belongs to the step around it. The step
    fails if the block raises, but not if it defers its work. Set `output` and `usage` to report them.
    """

    def __init__(self, run: AsyncRunProducer, name: str, kind: str, input_value: object = None) -> None:
        self.id = new_id()
        self.output: Any = None
        self.usage: Usage | None = None
        self._run = run
        self._name, self._kind, self._input = name, step_kind(kind), input_value
        self._parent_id = ""
        self._parent: NestedStep | None = None
        self._outer = _innermost.get()
        self._within = 0
        self._began = self._seconds = 0.0
        self._error: BaseException | None = None
        self._is_left = self._is_finished = False

    async def __aenter__(self) -> Self:
        self._began = monotonic()
        await self._run.end_message()
        self._parent_id = _open_step(self._run, self._outer)
        self._parent = _open_parent(self._run, self._outer)
        await self._publish(
            _payloads.step_started(self.id, self._parent_id, self._name, self._kind, self._input, attempt=1)
        )
        if self._parent is not None:
            self._parent._within += 1
        self._scope = _scope.enter(self._run, self.id)
        self._token = _innermost.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._seconds = monotonic() - self._began
        self._error = None if isinstance(error, ApprovalRequired | CallDeferred) else error
        self._is_left = True
        try:
            try:
                await self._run.end_message()
            finally:
                _innermost.reset(self._token)
                _scope.leave(self._scope)
                await self._finish_if_last()
        except Exception:
            if error is None:
                raise

    async def _finish_if_last(self) -> None:
        if not self._is_left or self._within:
            return
        self._is_finished = True
        await self._publish(
            _payloads.step_finished(self.id, self._parent_id, self.output, self._error, self.usage, self._seconds)
        )
        if self._parent is not None:
            self._parent._within -= 1
            await self._parent._finish_if_last()

    async def _publish(self, event: Event) -> None:
        scope = _scope.enter(self._run, self._parent_id)
        try:
            await self._run.publish(event)
        finally:
            _scope.leave(scope)


def _open_step(run: AsyncRunProducer, step: NestedStep | None) -> str:
    step_id = _scope.current_step(run)
    while step is not None:
        if step.id == step_id and step._is_finished:
            step_id = step._parent_id
        step = step._outer
    return step_id


def _open_parent(run: AsyncRunProducer, step: NestedStep | None) -> NestedStep | None:
    while step is not None and (step._run is not run or step._is_finished):
        step = step._outer
    return step
