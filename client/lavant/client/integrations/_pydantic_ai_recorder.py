"""One agent at work, as events of a run."""

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import ValidatedToolArgs, WrapModelRequestHandler, WrapToolExecuteHandler
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolRetryError
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    ToolCallEvent,
    ToolCallPart,
    ToolResultEvent,
)
from pydantic_ai.models import Model, ModelRequestContext

from lavant.client import AsyncRunProducer, _json, _payloads, _scope
from lavant.client._async.concurrency import monotonic
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._pydantic_ai_messages import asked
from lavant.client.integrations._pydantic_ai_model import recorded_model
from lavant.client.integrations._pydantic_ai_request import RequestRecorder
from lavant.client.integrations._pydantic_ai_step import NestedStep
from lavant.client.integrations._tool_call_ids import ToolCallIds
from lavant.contract.text import to_name, to_text
from lavant.v1.event_pb2 import ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import Error

PART_EVENTS = (PartStartEvent, PartDeltaEvent, PartEndEvent)
TOOL_EVENTS = (ToolCallEvent, ToolResultEvent)

_OUTCOMES = {
    "success": ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED,
    "denied": ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED,
    "retried": ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED,
}


class AgentRecorder:
    """Records an agent's requests to its model, its tool calls and its states, within the step that is open now.

    What cannot be recorded of them is lost alone: see Guard.
    """

    def __init__(self, run: AsyncRunProducer, guard: Guard) -> None:
        self.run = run
        self._guard = guard
        self._step_id = _scope.current_step(run)
        self._call_ids = ToolCallIds(self._step_id)
        self._request: RequestRecorder | None = None
        self._context: RunContext[Any] | None = None
        self._steps: dict[NestedStep, None] = {}
        # Calls that were announced, and not executed yet.
        self._calls: dict[str, list[ToolCallPart]] = {}

    async def model_request(
        self, ctx: RunContext[Any], request: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Record a request to the model: a step with one message."""
        model, messages = "model", "[]"
        with self._guard:
            model = to_name(request.model.model_name, default="model")
            self._call_ids.forget_expected()
        with self._guard:
            messages = asked(request.messages)
        async with NestedStep(self.run, self._guard, model, "model_request", input_json=messages) as step:
            recorder = self._request = RequestRecorder(self.run, step, model, self._call_ids, self._guard)
            self._context = ctx
            step.on_end = recorder.abort
            try:
                with self._open(step):
                    response = await handler(request)
            except BaseException as error:
                recorder.abort(error)
                raise
            finally:
                self._request = None
            recorder.finish(response)
        with self._guard:
            self.run.enqueue(_payloads.progress("", None, None, ctx.run_step, self.run.usage))
        return response

    def wrapped_model(self, model: Model) -> Model | None:
        """Return the model of the request that is made now, recorded."""
        if self._request is None or self._context is None:
            return None
        return recorded_model(model, self._request, self._context)

    async def tool(self, call: ToolCallPart, args: ValidatedToolArgs, handler: WrapToolExecuteHandler) -> Any:
        """Record a tool at work: a step with its call."""
        described: ToolCall | None = None
        name = to_name(call.tool_name, default="tool")
        with self._guard:
            self._announced(call.tool_call_id)
            described = self._described(call, args)
        began = monotonic()
        async with NestedStep(self.run, self._guard, name, "tool", args) as step:
            self._enqueue_started(described)
            step.on_end = partial(self._enqueue_failed, described, began)
            try:
                with self._open(step):
                    result = await handler(args)
            except BaseException as error:
                if not step.is_finished:
                    self._enqueue_failed(described, began, error)
                raise
            if not step.is_finished:
                step.output = result
                self._enqueue_finished(described, ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED, began, result)
        return result

    def event(self, event: AgentStreamEvent) -> None:
        """Record what the agent streams."""
        if isinstance(event, PART_EVENTS):
            if self._request is not None:
                self._request.add(event)
        elif isinstance(event, ToolCallEvent):
            self._calls.setdefault(to_text(event.part.tool_call_id), []).append(event.part)
        elif isinstance(event, ToolResultEvent):
            self._settle(event)

    def state(self, name: str, value: object) -> None:
        """Record the whole of a state."""
        with self._guard:
            self.run.enqueue(_payloads.state_snapshot(name, value))

    def end(self) -> None:
        """Finish what is still open: the agent was cancelled, and its tasks are only then."""
        for step in list(self._steps):
            step.end(CancelledError())

    @contextmanager
    def _open(self, step: NestedStep) -> Iterator[None]:
        self._steps[step] = None
        try:
            yield
        finally:
            self._steps.pop(step, None)

    def _announced(self, call_id: object) -> ToolCallPart | None:
        calls = self._calls.get(to_text(call_id))
        return calls.pop(0) if calls else None

    def _settle(self, event: ToolResultEvent) -> None:
        """Record a call that was answered without the tool's being run: malformed arguments, a final result."""
        call = self._announced(event.part.tool_call_id)
        if call is None:
            return
        described = self._described(call, call.args)
        part = event.part
        outcome = _OUTCOMES.get(part.outcome, ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED)
        failed = outcome != ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
        error = Error(message=_text(part.content), type=to_text(part.outcome)) if failed else None
        started = _payloads.tool_call_started(described)
        for made in (started, _payloads.tool_call_finished(described, outcome, part.content, error)):
            made.step_id = self._step_id
            self.run.enqueue(made)

    def _described(self, call: ToolCallPart, args: object) -> ToolCall:
        call_id = self._call_ids.take(call.tool_call_id)
        return _payloads.tool_call(call_id, call.tool_name, args, original_id=call.tool_call_id)

    def _enqueue_started(self, call: ToolCall | None) -> None:
        with self._guard:
            if call is not None:
                self.run.enqueue(_payloads.tool_call_started(call))

    def _enqueue_failed(self, call: ToolCall | None, began: float, error: BaseException) -> None:
        self._enqueue_finished(call, _outcome(error), began, error=error)

    def _enqueue_finished(
        self,
        call: ToolCall | None,
        outcome: "ToolCallOutcome.ValueType",
        began: float,
        result: object = None,
        error: BaseException | None = None,
    ) -> None:
        with self._guard:
            if call is not None:
                failure, seconds = _payloads.error_of(error) if error else None, monotonic() - began
                self.run.enqueue(_payloads.tool_call_finished(call, outcome, result, failure, seconds))


def _outcome(error: BaseException) -> "ToolCallOutcome.ValueType":
    if isinstance(error, ModelRetry | ToolRetryError):
        return ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED
    if isinstance(error, ApprovalRequired | CallDeferred):
        return ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED
    return ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED


def _text(content: object) -> str:
    text = to_text(content) if isinstance(content, str) else _json.encode(content)
    return text[: _payloads.MAX_ERROR_MESSAGE]
