"""Records what pydantic-ai agents do: `Agent(..., capabilities=[LavantCapability(client)])`.

Needs `pip install 'lavant[pydantic-ai]'`.
"""

import asyncio
import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from typing_extensions import override

from lavant.client import AsyncClient, AsyncRunProducer, ProducerOptions, _scope
from lavant.client._options import OnError, check_on_error
from lavant.client.integrations._extras import extra
from lavant.contract.text import to_name, to_text

with extra("pydantic-ai"):
    from pydantic_ai import AgentRunResult, RunContext
    from pydantic_ai.capabilities import (
        AbstractCapability,
        CapabilityOrdering,
        ValidatedToolArgs,
        WrapModelRequestHandler,
        WrapRunHandler,
        WrapToolExecuteHandler,
    )
    from pydantic_ai.messages import AgentStreamEvent, ModelResponse, ToolCallPart
    from pydantic_ai.models import Model, ModelRequestContext
    from pydantic_ai.tools import AgentDepsT, ToolDefinition

from lavant.client.integrations._guard import Guard, guarded_run
from lavant.client.integrations._pydantic_ai_recorder import PART_EVENTS, TOOL_EVENTS, AgentRecorder
from lavant.client.integrations._pydantic_ai_step import NestedStep


class LavantCapability(AbstractCapability[AgentDepsT]):
    """Publishes each run of an agent as a run of lavant's.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the
    agent becomes a step of that run instead. Each request to a model is a step with one message; each
    tool call is a step too, open until the agents begun in it are done as well. CancelRun cancels the agent.

    The agent does what it does without: it never waits for the network while it works, its values are not touched,
    and its models are asked as before, only that a model that can stream is streamed. Unless `on_error` is
    "raise", what cannot be recorded never fails the agent; so it is with an agent that outlives its run.
    Of several such capabilities the one given to the run records it, else the last one. Give a `run_id` only to
    the capabilities of a single run: `agent.run(..., capabilities=[LavantCapability(client, run_id=...)])`.

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
        self._on_error = check_on_error(on_error)
        self._options = options
        self._guard = Guard(self._on_error, "the agent")
        self._recorder: AgentRecorder | None = None
        # The capability that records this run, if it is another one.
        self._leader: LavantCapability[Any] | None = None

    @property
    def run(self) -> AsyncRunProducer | None:
        """The run that the agent is recorded in while it works, for capabilities within this one."""
        return self._recorder.run if self._recorder else None

    @property
    @override
    def has_on_event(self) -> bool:
        """Whether the agent's loop has to stream for this capability: it streams inside the model."""
        return False

    @override
    def listens_to(self, event: AgentStreamEvent) -> bool:
        """Whether `on_event` wants the event."""
        return isinstance(event, PART_EVENTS + TOOL_EVENTS)

    @override
    def get_ordering(self) -> CapabilityOrdering:
        """Be the outermost: record what becomes of the run after others have recovered from errors."""
        return CapabilityOrdering(position="outermost")

    @override
    async def for_run(self, ctx: RunContext[AgentDepsT]) -> Self:
        """Return a copy with its own state for each run of the agent."""
        return copy.copy(self)

    @override
    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Open the run, or the step, for as long as the agent works."""
        leader = _leader_of(ctx)
        if leader is not None and leader is not self:
            self._leader = leader
            return await handler()
        name = to_name(self._name or (ctx.agent.name if ctx.agent else None), default="agent")
        self._guard = Guard(self._on_error, f"the agent {name}")
        outer = _scope.current_run()
        if isinstance(outer, AsyncRunProducer):
            return await self._record_step(outer, name, ctx, handler)
        return await self._record_run(name, ctx, handler)

    @override
    async def wrap_model_request(
        self, ctx: RunContext[AgentDepsT], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Record a request to the model."""
        if self._recorder is None:
            return await handler(request_context)
        return await self._recorder.model_request(ctx, request_context, handler)

    @override
    def get_wrapper_model(self, model: Model) -> Model | None:
        """Listen to the model."""
        with self._guard:
            if self._recorder is not None:
                return self._recorder.wrapped_model(model)
        return None

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
            with self._guard:
                self._recorder.event(event)

    def publish_state(self, name: str, value: object) -> None:
        """Publish the whole of a state of the agent that is at work; nothing without one."""
        recorder = self._leader._recorder if self._leader else self._recorder
        if recorder is not None:
            recorder.state(name, value)

    async def _record_run(self, name: str, ctx: RunContext[AgentDepsT], handler: WrapRunHandler) -> AgentRunResult[Any]:
        run: AsyncRunProducer | None = None
        with self._guard:
            run = self._start(name, ctx)
        if run is None:
            return await handler()
        async with guarded_run(self._guard, run) as begun:
            if begun is None:
                return await handler()
            result = await self._record(run, ctx, handler)
            run.output = result.output
            return result

    def _start(self, name: str, ctx: RunContext[AgentDepsT]) -> AsyncRunProducer:
        if not isinstance(self._client, AsyncClient):
            raise TypeError(f"LavantCapability needs an AsyncClient, not {type(self._client).__name__}")
        return self._client.runs.start(
            name,
            input=ctx.prompt,
            run_id=self._run_id,
            labels=self._labels,
            conversation_id=to_name(ctx.conversation_id),
            producer_timeout=self._producer_timeout,
            model=to_text(ctx.model.model_name),
            on_error=self._on_error,
            options=self._options,
        )

    async def _record_step(
        self, outer: AsyncRunProducer, name: str, ctx: RunContext[AgentDepsT], handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        async with NestedStep(outer, self._guard, name, "agent", ctx.prompt) as step:
            result = await self._record(outer, ctx, handler)
            step.output = result.output
            return result

    async def _record(
        self, run: AsyncRunProducer, ctx: RunContext[AgentDepsT], handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        recorder = self._recorder = AgentRecorder(run, self._guard)
        try:
            return await _run_until_cancelled(run, ctx, handler)
        except BaseException:
            recorder.end()
            raise


async def _run_until_cancelled(
    run: AsyncRunProducer, ctx: RunContext[Any], handler: WrapRunHandler
) -> AgentRunResult[Any]:
    async def cancel_agent() -> None:
        await run.wait_cancelled()
        ctx.cancel()

    watching = asyncio.create_task(cancel_agent())
    try:
        return await handler()
    finally:
        # Not awaited: nothing may come between the agent's end and the end of its run.
        watching.cancel()


def _leader_of(ctx: RunContext[Any]) -> LavantCapability[Any] | None:
    """Return the capability that records the run: the last one; those given to the run come after the agent's."""
    found: list[LavantCapability[Any]] = []

    def collect(capability: AbstractCapability[Any]) -> None:
        if isinstance(capability, LavantCapability):
            found.append(capability)

    with suppress(NotImplementedError):
        if ctx.root_capability is not None:
            ctx.root_capability.apply(collect)
    return found[-1] if found else None
