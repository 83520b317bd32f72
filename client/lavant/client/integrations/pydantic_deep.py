"""Records what pydantic-deep's agents do: `create_deep_agent(..., capabilities=[DeepAgentCapability(client)])`.

Needs `pip install 'lavant[pydantic-deep]'`.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from typing_extensions import override

from lavant.client._publishing import scope as _scope
from lavant.client._wire import json_text as _json
from lavant.client.integrations.extras import extra

with extra("pydantic-deep"):
    from pydantic_ai import AgentRunResult, RunContext
    from pydantic_ai.agent import AbstractAgent, AgentRun, WrapperAgent
    from pydantic_ai.capabilities import AbstractCapability, ValidatedToolArgs, WrapRunHandler, WrapToolExecuteHandler
    from pydantic_ai.messages import ToolCallPart
    from pydantic_ai.tools import ToolDefinition
    from pydantic_ai.toolsets import AbstractToolset
    from subagents_pydantic_ai import CompiledSubAgent, SubAgentToolset

from lavant.client.integrations.pydantic_ai import LavantCapability


class DeepAgentCapability(LavantCapability[Any]):
    """Publishes each run of a deep agent as LavantCapability does; besides, its subagents and its todo list.

    A subagent is a step within the tool that starts it; or, in the background, beside that tool if it starts later.
    One that records itself is left alone. Whenever a tool has changed the todo list, the whole of it is published as
    the state "todos", a subagent's own list as "todos/NAME". Of subagents that the tool `delegate` makes up, only that
    tool is recorded. Like LavantCapability, it never changes what the agents do.

    Example:
        agent = create_deep_agent(model, name="planner", capabilities=[DeepAgentCapability(client)], **offline)
        await agent.run("Plan the day.", deps=DeepAgentDeps())
        assert (await anext(client.runs.list())).name == "planner"
    """

    _todos_name = "todos"
    _todos = "[]"

    @override
    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Record the run, and the subagents that it knows."""
        with self._guard:
            self._record_subagents(ctx)
        return await super().wrap_run(ctx, handler=handler)

    @override
    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: ValidatedToolArgs,
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Record a tool that executes a call, and the todo list if it has changed."""
        try:
            return await super().wrap_tool_execute(ctx, call=call, tool_def=tool_def, args=args, handler=handler)
        finally:
            # Beside another capability of this kind that records the run, this one has nothing to add.
            if not isinstance(self._leader, DeepAgentCapability):
                with self._guard:
                    self._record_todos(ctx)
                with self._guard:
                    self._record_subagents(ctx)

    def _record_todos(self, ctx: RunContext[Any]) -> None:
        todos = getattr(ctx.deps, "todos", None)
        if todos is not None and (text := _json.encode(todos)) != self._todos:
            self._todos = text
            self.publish_state(self._todos_name, todos)

    def _record_subagents(self, ctx: RunContext[Any]) -> None:
        """Put this capability around the subagents, which are built before it is."""
        for subagent in _subagents(ctx.agent):
            agent = subagent.agent
            if isinstance(agent, AbstractAgent) and not _records_itself(agent):
                subagent.agent = _RecordedSubagent(agent, self._of_subagent(subagent.name))

    def _of_subagent(self, name: str) -> "DeepAgentCapability":
        options = self._options["options"]
        capability = DeepAgentCapability(self._client, name=name, on_error=self._on_error, options=options)
        capability._todos_name = f"todos/{name}"
        return capability


class _RecordedSubagent(WrapperAgent[Any, Any]):
    """A subagent that is recorded wherever it runs."""

    def __init__(self, wrapped: AbstractAgent[Any, Any], capability: DeepAgentCapability) -> None:
        super().__init__(wrapped)
        self._capability = capability

    @asynccontextmanager
    async def iter(self, *args: Any, **kwargs: Any) -> AsyncGenerator[AgentRun[Any, Any], None]:
        """Run it with the capability, if the agent that starts it is recorded: it may be run without."""
        if _scope.current_run() is not None:
            kwargs["capabilities"] = [*(kwargs.get("capabilities") or ()), self._capability]
        async with self.wrapped.iter(*args, **kwargs) as run:
            yield run


def _subagents(agent: AbstractAgent[Any, Any] | None) -> list[CompiledSubAgent]:
    found: list[CompiledSubAgent] = []

    def collect(toolset: AbstractToolset[Any]) -> None:
        if isinstance(toolset, SubAgentToolset):
            # There is no public way to the configured ones.
            found.extend(toolset._compiled.values())
            found.extend(toolset.registry.list_compiled())

    for toolset in agent.toolsets if agent else ():
        toolset.apply(collect)
    return found


def _records_itself(agent: AbstractAgent[Any, Any]) -> bool:
    if isinstance(agent, _RecordedSubagent):
        return True
    found: list[AbstractCapability[Any]] = []
    with suppress(NotImplementedError):
        agent.root_capability.apply(found.append)
    return any(isinstance(capability, LavantCapability) for capability in found)
