"""Records what pydantic-ai agents do: `Agent(..., capabilities=[LavantCapability(client)])`.

Needs `pip install 'lavant[pydantic-ai]'`.
"""

import copy
from collections.abc import Mapping
from typing import Any, Self

from pydantic_ai import AgentRunResult, RunContext
from pydantic_ai.capabilities import (
    AbstractCapability,
    ValidatedToolArgs,
    WrapModelRequestHandler,
    WrapRunHandler,
    WrapToolExecuteHandler,
)
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolRetryError
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    ToolCallEvent,
    ToolCallPart,
    ToolResultEvent,
    ToolReturnPart,
)
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import AgentDepsT, ToolDefinition
from typing_extensions import override

from lavant.client import AsyncClient, AsyncRunProducer, ProducerOptions, Usage, _json, _payloads, _scope
from lavant.client._async.concurrency import Background, monotonic
from lavant.client.integrations._pydantic_ai_response import ResponseRecorder, usage_of
from lavant.v1.event_pb2 import ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import Error

_OUTCOMES = {
    "success": ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED,
    "denied": ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED,
    "retried": ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED,
}


class LavantCapability(AbstractCapability[AgentDepsT]):
    """Publishes each run of an agent as a run of lavant's.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the
    agent becomes a step of that run instead. Each request to a model is a step with one message, each
    tool call a step too. CancelRun cancels the agent. The agent never waits for the network while it
    works, only at its beginning (until the run is created) and at its end (until all is durable). Unless
    `options` are strict, what cannot be recorded never fails the agent: see ProducerOptions. Give a `run_id`
    only to the capabilities of a single run: `agent.run(..., capabilities=[LavantCapability(client, run_id=...)])`.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        name: str | None = None,
        run_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        options: ProducerOptions | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._run_id = run_id
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._options = options
        self._recorder: _AgentRecorder | None = None

    @override
    async def for_run(self, ctx: RunContext[AgentDepsT]) -> Self:
        """Give each run of the agent its own state."""
        return copy.copy(self)

    @override
    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Open the run, or the step, for as long as the agent works."""
        outer = _scope.current_run()
        name = self._name or (ctx.agent.name if ctx.agent else None) or "agent"
        if isinstance(outer, AsyncRunProducer):
            async with outer.step(name, "agent", input=_json.bounded(ctx.prompt)) as step:
                recorder = self._recorder = _AgentRecorder(outer)
                try:
                    result = await _run_until_cancelled(outer, ctx, handler)
                finally:
                    step.usage = recorder.usage
                step.output = _json.bounded(result.output)
                return result
        options = self._options or ProducerOptions(strict=False)
        async with self._client.runs.start(
            name,
            input=_json.bounded(ctx.prompt),
            run_id=self._run_id,
            labels=self._labels,
            conversation_id=ctx.conversation_id or "",
            producer_timeout=self._producer_timeout,
            model=ctx.model.model_name,
            options=options,
        ) as run:
            self._recorder = _AgentRecorder(run)
            result = await _run_until_cancelled(run, ctx, handler)
            run.output = _json.bounded(result.output)
            return result

    @override
    async def wrap_model_request(
        self, ctx: RunContext[AgentDepsT], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Record a request to the model."""
        if self._recorder is None:
            return await handler(request_context)
        return await self._recorder.model_request(ctx, request_context, handler)

    @override
    async def wrap_tool_execute(
        self,
        ctx: RunContext[AgentDepsT],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: ValidatedToolArgs,
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Record a tool at work."""
        if self._recorder is None:
            return await handler(args)
        return await self._recorder.tool(call, args, handler)

    @override
    async def on_event(self, ctx: RunContext[AgentDepsT], *, event: AgentStreamEvent) -> None:
        """Record what the agent streams."""
        if self._recorder is not None:
            self._recorder.event(event)


async def _run_until_cancelled(
    run: AsyncRunProducer, ctx: RunContext[Any], handler: WrapRunHandler
) -> AgentRunResult[Any]:
    async def cancel_agent() -> None:
        await run.wait_cancelled()
        ctx.cancel()

    watching = Background(cancel_agent)
    try:
        return await handler()
    finally:
        await watching.stop()


class _AgentRecorder:
    """One agent at work, as events of a run."""

    def __init__(self, run: AsyncRunProducer) -> None:
        self.usage = Usage()
        self._run = run
        self._step_id = _scope.current_step(run)
        self._response: ResponseRecorder | None = None
        self._calls: dict[str, ToolCallPart] = {}

    async def model_request(
        self, ctx: RunContext[Any], request: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
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
        self._calls.pop(call.tool_call_id, None)
        described = _payloads.recorded_call(self._call_id(call.tool_call_id), call.tool_name, args)
        began = monotonic()
        async with self._run.step(call.tool_name, "tool"):
            self._run.enqueue(_payloads.tool_call_started(described))
            try:
                result = await handler(args)
            except BaseException as error:
                self._finish_tool(described, _outcome(error), began, error=error)
                raise
            self._finish_tool(described, ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED, began, result=result)
        return result

    def event(self, event: AgentStreamEvent) -> None:
        if isinstance(event, PartStartEvent | PartDeltaEvent):
            if self._response is not None:
                self._response.add(event)
        elif isinstance(event, ToolCallEvent):
            self._calls[event.tool_call_id] = event.part
        elif isinstance(event, ToolResultEvent):
            self._settle(event)

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
