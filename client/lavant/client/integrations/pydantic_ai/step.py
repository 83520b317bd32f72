"""Steps of agents, model requests and tools, which may be outlived by others: a tool can leave an agent at work."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolRetryError

from lavant.client import AsyncRunProducer, Usage
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.guard import Guard
from lavant.client.integrations.recording.steps import Outcome, StepRecorder
from lavant.v1.event_pb2 import Event, ToolCallOutcome

_innermost: "ContextVar[NestedStep | None]" = ContextVar("lavant_pydantic_ai_step", default=None)


class NestedStep:
    """A step for the length of a block, which finishes only after all steps that were started in it.

    What starts after it has finished, in a task that inherited it, belongs to the step around it. Set `output` and
    `usage` to report them, `failure` if the step failed with another error than the one that the block raises.
    """

    def __init__(self, run: AsyncRunProducer, guard: Guard) -> None:
        self.id = ""
        self.output: Any = None
        self.usage: Usage | None = None
        self.failure: Exception | None = None
        self._run = run
        self._guard = guard
        self._outer: NestedStep | None = _innermost.get()
        self.parent = _open_step(run, self._outer)
        self.parent_id: str = _open_step_id(run, self._outer)
        self.steps: StepRecorder = StepRecorder(_ScopedLog(run)) if self.parent is None else self.parent.steps

    @property
    def is_open(self) -> bool:
        """Whether it has not finished."""
        return self.steps.is_open(self)

    def restart_if_failed(self) -> None:
        """Start the next attempt if the step has a `failure`: readers forget what the failed one did."""
        if self.failure is not None:
            with self._guard:
                self.steps.restart(self, self.failure, self.usage)
            self.failure = self.usage = None

    def cut(self, error: BaseException) -> None:
        """Finish the step and all within it now; the code in its block leaves it later.

        pydantic-ai unwinds the tasks of a cancelled agent only after the agent's own hooks have returned.
        """
        with self._guard:
            self.steps.finish(self, error=error)

    def leave(self, error: BaseException | None) -> None:
        """Finish the step, unless it was cut before, or once all within it has finished."""
        outcome: Outcome | None = None
        if isinstance(error, ModelRetry | ToolRetryError):
            outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED
        elif isinstance(error, ApprovalRequired | CallDeferred):
            outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED
        with self._guard:
            self.steps.leave(self, output=self.output, error=self.failure or error, usage=self.usage, outcome=outcome)


def _open_step(run: AsyncRunProducer, step: NestedStep | None) -> NestedStep | None:
    """Return the innermost step of a run that has not finished, from this one outwards."""
    while step is not None and (step._run is not run or not step.is_open):
        step = step._outer
    return step


def _open_step_id(run: AsyncRunProducer, step: NestedStep | None) -> str:
    """Return the id of the run's innermost open step, which may also be a block of the application's own."""
    step_id = _scope.current_step(run)
    while step is not None:
        if step.id == step_id and not step.is_open:
            step_id = step.parent_id
        step = step._outer
    return step_id


@asynccontextmanager
async def nested_step(
    run: AsyncRunProducer, guard: Guard, start: Callable[[NestedStep], object]
) -> AsyncIterator[NestedStep]:
    """Open a step for the length of a block, as `start` starts it. Never waits for room in the queue."""
    step = NestedStep(run, guard)
    with guard:
        await run.end_message()
    with guard:
        start(step)
    step.id = step.steps.step_id(step)
    scope, token = _scope.enter(run, step.id), _innermost.set(step)
    failure: BaseException | None = None
    try:
        yield step
    except BaseException as error:
        failure = error
        raise
    finally:
        try:
            with guard:
                await run.end_message()
        finally:
            _innermost.reset(token)
            _scope.leave(scope)
            step.leave(failure)


class _ScopedLog:
    """A run's producer, for events that belong to the step that they name, or to the run if they name none."""

    def __init__(self, run: AsyncRunProducer) -> None:
        self._run = run

    def enqueue(self, event: Event) -> None:
        """Queue an event without ever waiting."""
        scope = _scope.enter(self._run, event.step_id)
        try:
            self._run.enqueue(event)
        finally:
            _scope.leave(scope)
