"""The Agents SDK's hooks, told to the recorder of the run that they belong to.

They are plain functions that return an awaitable: what they do is done in the task that calls them,
not in one that the SDK makes of them. So a tool is the scope of whatever runs in it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    Handoff,
    Model,
    ModelResponse,
    RunContextWrapper,
    RunHooks,
    Tool,
    TResponseInputItem,
)
from agents.exceptions import UserError
from agents.models import get_default_model
from agents.run_context import AgentHookContext
from agents.tool_context import ToolContext
from typing_extensions import override

from lavant.client import _scope
from lavant.client.integrations._openai_agents_failure import failure_of
from lavant.client.integrations._openai_agents_recorder import Run, RunRecorder, ToolAtWork
from lavant.contract.text import to_name

Done = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a task is at work: in a run of the SDK's, and in the tool that is the innermost around it.

    `model` is the one that all agents of the run are to use, if any.
    """

    run: Run
    recorder: RunRecorder
    tool: ToolAtWork | None = None
    model: str | Model | None = None

    def record(self, action: Callable[[RunRecorder], object]) -> None:
        """Record something, unless the run is over. What cannot be recorded is lost alone: see Guard."""
        if not self.recorder.is_finished:
            with self.recorder.guard:
                action(self.recorder)

    def run_within(self, context: object) -> "Place":
        """Return the place of the run with this context, which is this one or has been begun in it."""
        if self.recorder.context is context:
            return self
        within = self.tool.inner if self.tool else self.recorder.inner
        found = next((inner for inner in within if inner.context is context), None)
        if found is None:
            found = RunRecorder(self.run, self.recorder.guard, _scope.current_step(self.run))
            found.context = context
            within.append(found)
        config = context.run_config if isinstance(context, ToolContext) else None
        return replace(self, recorder=found, model=config.model if config else None)


place: ContextVar[Place | None] = ContextVar("lavant_openai_agents_place", default=None)


class RecordingHooks(RunHooks[Any]):
    """Tells what the hooks say to the recorder of a run, and then to `others`."""

    def __init__(self, others: RunHooks[Any] | None = None) -> None:
        self._others: RunHooks[Any] = others or RunHooks()

    def find(self, agent: Agent[Any], context: object = None) -> Place | None:
        """Return the place of the run that an agent is at work in; a `context` that is given is that run's."""
        raise NotImplementedError

    def end_agent(self, recorder: RunRecorder, output: object) -> None:
        """Record that the last agent of a run has its output."""
        raise NotImplementedError

    @override
    def on_agent_start(self, context: AgentHookContext[Any], agent: Agent[Any]) -> Done:
        """Pass it on: an agent begins with its first request."""
        return self._others.on_agent_start(context, agent)

    @override
    def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> Done:
        """Record that a model is asked."""
        if at := self.find(agent, context):
            place.set(at)
            name = model_name(agent, at.model)
            at.record(lambda recorder: recorder.begin_request(agent, name, input_items, system_prompt))
        return self._others.on_llm_start(context, agent, system_prompt, input_items)

    @override
    def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> Done:
        """Record what it answered."""
        if at := self.find(agent):
            at.record(lambda recorder: recorder.end_request(response))
        return self._others.on_llm_end(context, agent, response)

    @override
    def on_handoff(self, context: RunContextWrapper[Any], from_agent: Agent[Any], to_agent: Agent[Any]) -> Done:
        """Record that an agent hands over."""
        if at := self.find(from_agent):
            at.record(lambda recorder: recorder.hand_over(to_agent, Handoff.default_tool_name(to_agent)))
        return self._others.on_handoff(context, from_agent, to_agent)

    @override
    def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> Done:
        """Record that a tool is called; a function has a task of its own, which may end without `on_tool_end`."""
        if at := self.find(agent):
            at.record(lambda recorder: _begin_tool(at, recorder, context, tool))
        return self._others.on_tool_start(context, agent, tool)

    @override
    def on_tool_end(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: object) -> Done:
        """Record what it gave."""
        if at := self.find(agent):
            key = _key(context, tool)
            at.record(lambda recorder: recorder.end_tool(key, result, failure_of(context, tool, result)))
        return self._others.on_tool_end(context, agent, tool, result)

    @override
    def on_agent_end(self, context: AgentHookContext[Any], agent: Agent[Any], output: Any) -> Done:
        """Record that the agent has its output."""
        if at := self.find(agent):
            at.record(lambda recorder: self.end_agent(recorder, output))
        return self._others.on_agent_end(context, agent, output)


def model_name(agent: Agent[Any], configured: str | Model | None) -> str:
    """Return the name of the model that an agent asks."""
    model = agent.model if configured is None or configured == "" else configured
    if model is None or model == "":
        model = get_default_model()
    return to_name(model if isinstance(model, str) else getattr(model, "model", None), default=type(model).__name__)


def _key(context: RunContextWrapper[Any], tool: Tool) -> Hashable:
    return context if isinstance(tool, FunctionTool) else (context, tool.name)


def _begin_tool(at: Place, recorder: RunRecorder, context: RunContextWrapper[Any], tool: Tool) -> None:
    key = _key(context, tool)
    if not isinstance(tool, FunctionTool) or not isinstance(context, ToolContext):
        recorder.begin_tool(key, tool.name)
        return
    begun = recorder.begin_tool(key, tool.name, context.tool_arguments, context.tool_call_id)
    # In the task of this one call, and so in what it begins.
    _scope.enter(at.run, begun.step_id)
    place.set(replace(at, tool=begun))
    if task := asyncio.current_task():
        task.add_done_callback(lambda ended: at.record(lambda recorder: _end_task(recorder, key, ended)))


def _end_task(recorder: RunRecorder, key: Hashable, task: "asyncio.Task[Any]") -> None:
    if task.cancelled():
        recorder.end_tool(key, error=asyncio.CancelledError("cut off"))
    elif error := task.exception():
        cause = error.__cause__ if isinstance(error, UserError) else None
        recorder.end_tool(key, error=cause or error)
    else:
        recorder.put_off_tool(key)
