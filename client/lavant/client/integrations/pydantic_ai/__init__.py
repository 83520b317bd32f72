"""Records what pydantic-ai agents do: `Agent(..., capabilities=[LavantCapability(client)])`.

Needs `pip install 'lavant[pydantic-ai]'`.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from typing_extensions import override

from lavant.client import AsyncClient, AsyncRunProducer, ProducerOptions
from lavant.client._publishing import scope as _scope
from lavant.client.integrations.extras import extra
from lavant.client.options import OnError, check_on_error
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

from lavant.client._publishing.guard import Guard
from lavant.client.integrations.pydantic_ai.recorder import PART_EVENTS, TOOL_EVENTS, AgentRecorder
from lavant.client.integrations.pydantic_ai.step import NestedStep, nested_step
from lavant.client.integrations.recording.runs import RunOptions, calling_on_cancel, check_client, guarded_run


class LavantCapability(AbstractCapability[AgentDepsT]):
    """Publishes each run of an agent as a run of lavant.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the agent becomes a
    step of that run instead. Each request to a model is a step with one message; each tool call is a step too, open
    until the agents that were started in it have ended as well. CancelRun cancels the agent.

    It never changes what the agent does: not its values, its history, its errors or its loop; only, a model that can
    stream is streamed. The agent never waits for the network while it works. Unless `on_error` is "raise", what cannot
    be recorded is logged and never fails the agent; nor does an agent that outlives its run fail.

    Of several such capabilities the one given to the run records it, else the last one. Set `run_id` only for a
    single run of the agent: `agent.run(..., capabilities=[LavantCapability(client, run_id=...)])`.

    Raises ValueError for another `on_error`; the agent raises TypeError if `client` is no AsyncClient and `on_error`
    is "raise".

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
        self._on_error = check_on_error(on_error)
        self._options = RunOptions(labels=labels, producer_timeout=producer_timeout, on_error=on_error, options=options)
        self._guard = Guard(on_error, "the agent")
        self._recorder: AgentRecorder | None = None
        # The capability that records this run, if it is another one.
        self._leader: LavantCapability[Any] | None = None

    @property
    def run(self) -> AsyncRunProducer | None:
        """The run that the agent is recorded in while it works, for capabilities within this one; else None."""
        return self._recorder.run if self._recorder else None

    @property
    @override
    def has_on_event(self) -> bool:
        """Whether the agent's loop has to stream for this capability: it streams inside the model."""
        return False

    @override
    def listens_to(self, event: AgentStreamEvent) -> bool:
        """Return whether `on_event` is called for an event."""
        return isinstance(event, PART_EVENTS + TOOL_EVENTS)

    @override
    def get_ordering(self) -> CapabilityOrdering:
        """Return the position outermost: the run is recorded as it ends after others have recovered from errors."""
        return CapabilityOrdering(position="outermost")

    @override
    async def for_run(self, ctx: RunContext[AgentDepsT]) -> Self:
        """Return a copy with its own state for each run of the agent."""
        return copy.copy(self)

    @override
    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Record the agent: as a run, or as a step of the run around it."""
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
        """Return the model, recorded."""
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
        """Record a tool that executes a call."""
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
        """Publish the whole of a state of the agent; does nothing while no agent works."""
        recorder = self._leader._recorder if self._leader else self._recorder
        if recorder is not None:
            recorder.state(name, value)

    async def _record_run(self, name: str, ctx: RunContext[AgentDepsT], handler: WrapRunHandler) -> AgentRunResult[Any]:
        async with guarded_run(self._guard, lambda: self._start(name, ctx)) as run:
            if run is None:
                return await handler()
            result = await self._record(run, ctx, handler)
            run.output = result.output
            return result

    def _start(self, name: str, ctx: RunContext[AgentDepsT]) -> AsyncRunProducer:
        return check_client(self._client, AsyncClient, "LavantCapability").runs.start(
            name,
            input=ctx.prompt,
            run_id=self._run_id,
            conversation_id=to_name(ctx.conversation_id),
            model=to_text(ctx.model.model_name),
            **self._options,
        )

    async def _record_step(
        self, outer: AsyncRunProducer, name: str, ctx: RunContext[AgentDepsT], handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        def start(step: NestedStep) -> None:
            step.steps.start(step, name, "agent", parent=step.parent, parent_id=step.parent_id, input=ctx.prompt)

        async with nested_step(outer, self._guard, start) as step:
            result = await self._record(outer, ctx, handler)
            step.output = result.output
            return result

    async def _record(
        self, run: AsyncRunProducer, ctx: RunContext[AgentDepsT], handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        recorder = self._recorder = AgentRecorder(run, self._guard)
        try:
            with calling_on_cancel(run, ctx.cancel):
                return await handler()
        except BaseException:
            recorder.cut()
            raise


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
