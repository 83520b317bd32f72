"""One agent at work, as events of a run."""

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
    ToolReturnPart,
)
from pydantic_ai.models import ModelRequestContext

from lavant.client import AsyncRunProducer, Usage, _json, _payloads, _scope
from lavant.client._async.concurrency import monotonic
from lavant.client.integrations._pydantic_ai_response import ResponseRecorder, usage_of
from lavant.client.integrations._pydantic_ai_step import NestedStep
from lavant.v1.event_pb2 import ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import Error

_OUTCOMES = {
    "success": ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED,
    "denied": ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED,
    "retried": ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED,
}


class AgentRecorder:
    """Records an agent's requests to its model, its tool calls and its states, within the step that is open now."""

    def __init__(self, run: AsyncRunProducer) -> None:
        self.usage = Usage()
        self._run = run
        self._step_id = _scope.current_step(run)
        self._response: ResponseRecorder | None = None
        self._calls: dict[str, ToolCallPart] = {}

    async def model_request(
        self, ctx: RunContext[Any], request: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Record a request to the model: a step with one message."""
        model = request.model.model_name
        async with self._run.step(model, "model_request") as step:
            recorder = self._response = ResponseRecorder(self._run, step.id, model, self._call_id)
            response: ModelResponse | None = None
            try:
                response = await handler(request)
            finally:
                recorder.finish(response)
                self._response = None
            step.usage = usage_of(response.usage)
        self.usage += step.usage
        self._run.usage = step.usage + (self._run.usage or Usage())
        self._run.enqueue(_payloads.progress("", None, None, ctx.run_step, self._run.usage))
        return response

    async def tool(self, call: ToolCallPart, args: ValidatedToolArgs, handler: WrapToolExecuteHandler) -> Any:
        """Record a tool at work: a step with its call."""
        self._calls.pop(call.tool_call_id, None)
        described = _payloads.recorded_call(self._call_id(call.tool_call_id), call.tool_name, args)
        began = monotonic()
        async with NestedStep(self._run, call.tool_name, "tool"):
            self._run.enqueue(_payloads.tool_call_started(described))
            try:
                result = await handler(args)
            except BaseException as error:
                self._finish_tool(described, _outcome(error), began, error=error)
                raise
            self._finish_tool(described, ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED, began, result=result)
        return result

    def event(self, event: AgentStreamEvent) -> None:
        """Record what the agent streams."""
        if isinstance(event, PartStartEvent | PartDeltaEvent | PartEndEvent):
            if self._response is not None:
                self._response.add(event)
        elif isinstance(event, ToolCallEvent):
            self._calls[event.tool_call_id] = event.part
        elif isinstance(event, ToolResultEvent):
            self._settle(event)

    def state(self, name: str, value: object) -> None:
        """Record the whole of a state."""
        self._run.enqueue(_payloads.state_snapshot(name, _json.bounded(value)))

    def _finish_tool(
        self,
        call: ToolCall,
        outcome: "ToolCallOutcome.ValueType",
        began: float,
        *,
        result: object = None,
        error: BaseException | None = None,
    ) -> None:
        failure = _payloads.error_of(error) if error else None
        self._run.enqueue(
            _payloads.tool_call_finished(call, outcome, _json.bounded(result), failure, monotonic() - began)
        )

    def _settle(self, event: ToolResultEvent) -> None:
        """Record a call that was answered without the tool's being run: malformed arguments, a final result."""
        call = self._calls.pop(event.tool_call_id, None)
        if call is None:
            return
        described = _payloads.recorded_call(self._call_id(call.tool_call_id), call.tool_name, call.args)
        part = event.part
        outcome = _OUTCOMES.get(part.outcome, ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED)
        failed = outcome != ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
        error = Error(message=_json.valid_text(_text(part)), type=part.outcome) if failed else None
        for made in (
            _payloads.tool_call_started(described),
            _payloads.tool_call_finished(described, outcome, _json.bounded(part.content), error),
        ):
            made.step_id = self._step_id
            self._run.enqueue(made)

    def _call_id(self, given: str) -> str:
        """Name a tool call apart from those of the run's other agents, which may count alike."""
        return f"{self._step_id[-12:]}.{given}" if self._step_id else given


def _outcome(error: BaseException) -> "ToolCallOutcome.ValueType":
    if isinstance(error, ModelRetry | ToolRetryError):
        return ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED
    if isinstance(error, ApprovalRequired | CallDeferred):
        return ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED
    return ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED


def _text(part: ToolReturnPart) -> str:
    return part.model_response_str()[: _payloads.MAX_ERROR_MESSAGE]
