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
from pydantic_ai.messages import AgentStreamEvent, ModelResponse, ToolCallPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import AgentDepsT, ToolDefinition
from typing_extensions import override

from lavant.client import AsyncClient, AsyncRunProducer, ProducerOptions, _json, _scope
from lavant.client._async.concurrency import Background
from lavant.client._options import OnError
from lavant.client.integrations._pydantic_ai_recorder import AgentRecorder
from lavant.client.integrations._pydantic_ai_step import NestedStep


class LavantCapability(AbstractCapability[AgentDepsT]):
    """Publishes each run of an agent as a run of lavant's.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the
    agent becomes a step of that run instead. Each request to a model is a step with one message; each
    tool call is a step too, open until the agents begun in it are done as well. CancelRun cancels the agent.
    The agent never waits for the network while it works, only at its beginning (until the run is created) and
    at its end (until all is durable). Unless `on_error` is "raise", what cannot be recorded never fails the
    agent; so it is with an agent that outlives its run. Give a `run_id` only to the
    capabilities of a single run: `agent.run(..., capabilities=[LavantCapability(client, run_id=...)])`.

    Example:
        agent = Agent(model, name="weather-agent", capabilities=[LavantCapability(client)])
        await agent.run("How is it in Oslo?")
        run = await anext(client.runs.list())
        assert (run.name, run.state) == ("weather-agent", "succeeded")
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        name: str | None = None,
        run_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        on_error: OnError = "log",
        options: ProducerOptions | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._run_id = run_id
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._on_error: OnError = on_error
        self._options = options
        self._recorder: AgentRecorder | None = None

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
            async with NestedStep(outer, name, "agent", _json.bounded(ctx.prompt)) as step:
                recorder = self._recorder = AgentRecorder(outer)
                try:
                    result = await _run_until_cancelled(outer, ctx, handler)
                finally:
                    step.usage = recorder.usage
                step.output = _json.bounded(result.output)
                return result
        async with self._client.runs.start(
            name,
            input=_json.bounded(ctx.prompt),
            run_id=self._run_id,
            labels=self._labels,
            conversation_id=ctx.conversation_id or "",
            producer_timeout=self._producer_timeout,
            model=ctx.model.model_name,
            on_error=self._on_error,
            options=self._options,
        ) as run:
            self._recorder = AgentRecorder(run)
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

    def publish_state(self, name: str, value: object) -> None:
        """Publish the whole of a state of the agent that is at work; nothing without one."""
        if self._recorder is not None:
            self._recorder.state(name, value)


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
