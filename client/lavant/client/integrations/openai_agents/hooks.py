"""The Agents SDK's hooks, which pass what they report to the recorder of the run that it belongs to.

They are plain functions that return an awaitable: what they do is done in the task that calls them, not in one that
the SDK makes of them. So a tool is the scope of whatever runs in it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agents import (
    Agent,
    AgentToolStreamEvent,
    FunctionTool,
    Handoff,
    Model,
    ModelResponse,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Tool,
    ToolErrorFormatterArgs,
    ToolOriginType,
    TResponseInputItem,
    default_tool_error_function,
)
from agents.exceptions import ToolTimeoutError, UserError
from agents.models import get_default_model
from agents.run import RunOptions as SdkOptions
from agents.run_config import ToolErrorFormatter
from agents.run_context import AgentHookContext
from agents.tool import default_tool_timeout_error_message, get_function_tool_origin
from agents.tool_context import ToolContext
from agents.tracing import get_current_span
from typing_extensions import override

from lavant.client._publishing import scope as _scope
from lavant.client.integrations.openai_agents.recorder import OpenTool, RunRecorder
from lavant.client.integrations.recording.runs import RunLog
from lavant.contract.text import to_name

_Pending = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True, eq=False)
class ActiveRun:
    """The run of the SDK that a task works for, and the innermost tool around the task.

    `model` is the one that all agents of the run use, if any.
    """

    run: RunLog
    recorder: RunRecorder
    tool: OpenTool | None = None
    model: str | Model | None = None

    def record(self, action: Callable[[RunRecorder], object]) -> None:
        """Record something, unless the run is over. What cannot be recorded is lost alone: see Guard."""
        if not self.recorder.is_finished:
            with self.recorder.guard:
                action(self.recorder)

    def with_context(self, context: object) -> "ActiveRun":
        """Return the run of the SDK with this context: this one, or one that was started in it."""
        if self.recorder.context is context:
            return self
        inner = self.tool.inner if self.tool else self.recorder.inner
        found = next((recorder for recorder in inner if recorder.context is context), None)
        if found is None:
            found = RunRecorder(self.run, self.recorder.guard, _scope.current_step(self.run))
            found.context = context
            inner.append(found)
        config = context.run_config if isinstance(context, ToolContext) else None
        return replace(self, recorder=found, model=config.model if config else None)


active_run: ContextVar[ActiveRun | None] = ContextVar("lavant_openai_agents_run", default=None)


class RecordingHooks(RunHooks[Any]):
    """Base of hooks that pass what they report to a recorder, and then to `others`."""

    def __init__(self, others: RunHooks[Any] | None = None) -> None:
        self._others: RunHooks[Any] = others or RunHooks()

    def find(self, agent: Agent[Any], context: object = None) -> ActiveRun | None:
        """Return the run of the SDK that an agent works in; a `context` that is given is that run's."""
        raise NotImplementedError

    def end_agent(self, recorder: RunRecorder, output: object) -> None:
        """Record the output of a run's last agent."""
        raise NotImplementedError

    @override
    def on_agent_start(self, context: AgentHookContext[Any], agent: Agent[Any]) -> _Pending:
        """Record nothing: an agent starts with its first request."""
        return self._others.on_agent_start(context, agent)

    @override
    def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> _Pending:
        """Record a request to a model."""
        if active := self.find(agent, context):
            active_run.set(active)
            name = model_name(agent, active.model)
            active.record(lambda recorder: recorder.start_request(agent, name, input_items, system_prompt))
        return self._others.on_llm_start(context, agent, system_prompt, input_items)

    @override
    def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> _Pending:
        """Record a model's response."""
        if active := self.find(agent):
            active.record(lambda recorder: recorder.finish_request(response))
        return self._others.on_llm_end(context, agent, response)

    @override
    def on_handoff(self, context: RunContextWrapper[Any], from_agent: Agent[Any], to_agent: Agent[Any]) -> _Pending:
        """Record that an agent hands over."""
        if active := self.find(from_agent):
            active.record(lambda recorder: recorder.hand_over(to_agent, Handoff.default_tool_name(to_agent)))
        return self._others.on_handoff(context, from_agent, to_agent)

    @override
    def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> _Pending:
        """Record a tool call; a function has a task of its own, which may end without `on_tool_end`."""
        if active := self.find(agent):
            active.record(lambda recorder: _start_tool(active, recorder, context, tool))
        return self._others.on_tool_start(context, agent, tool)

    @override
    def on_tool_end(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: object) -> _Pending:
        """Record a tool's result."""
        if active := self.find(agent):
            key = _key(context, tool)
            active.record(lambda recorder: recorder.finish_tool(key, result, _failure_of(context, tool, result)))
        return self._others.on_tool_end(context, agent, tool, result)

    @override
    def on_agent_end(self, context: AgentHookContext[Any], agent: Agent[Any], output: Any) -> _Pending:
        """Record an agent's output."""
        if active := self.find(agent):
            active.record(lambda recorder: self.end_agent(recorder, output))
        return self._others.on_agent_end(context, agent, output)


class RunnerHooks(RecordingHooks):
    """The hooks of one run that a LavantRunner records as a whole."""

    def __init__(self, active: ActiveRun, others: RunHooks[Any] | None) -> None:
        # LavantHooks would record everything a second time.
        super().__init__(None if isinstance(others, RecordingHooks) else others)
        self._active = active

    @override
    def find(self, agent: Agent[Any], context: object = None) -> ActiveRun:
        return self._active

    @override
    def end_agent(self, recorder: RunRecorder, output: object) -> None:
        recorder.has_output = True


class LavantHooks(RecordingHooks):
    """Records an agent that runs within one that a LavantRunner runs; elsewhere, nothing.

    For an agent that is a tool: `agent.as_tool(..., hooks=LavantHooks())`, and with `on_stream=hooks.on_stream` its
    text comes as deltas. For one that a tool's code runs: `Runner.run(agent, ..., hooks=LavantHooks())`. As with
    LavantRunner, nothing changes what the agent does.

    Example:
        forecaster = Agent("forecaster", model=model)
        tool = forecaster.as_tool("forecast", "Forecasts the weather.", hooks=LavantHooks())
        agent = Agent("weather-agent", model=calling_model, tools=[tool])
        await LavantRunner(client).run(agent, "How is it in Oslo?")
        run = await anext(client.runs.list())
        assert "forecaster" in [step.name async for step in client.runs.stream(run.id).steps]
    """

    @override
    def find(self, agent: Agent[Any], context: object = None) -> ActiveRun | None:
        """Return the run of the SDK that an agent works in; None where no LavantRunner is around."""
        active = active_run.get()
        if active is None or context is not None:
            return active and active.with_context(context)
        return active if active.recorder.agent is agent else None

    @override
    def end_agent(self, recorder: RunRecorder, output: object) -> None:
        """Record the end of the run."""
        recorder.finish(output)

    def on_stream(self, streamed: AgentToolStreamEvent) -> None:
        """Record what an agent that is a tool streams."""
        event, active = streamed["event"], active_run.get()
        if event.type == "raw_response_event" and active and active.tool and active.tool.inner:
            inner = replace(active, recorder=active.tool.inner[-1])
            inner.record(partial(RunRecorder.stream, event=event.data))


def configured_model(options: SdkOptions[Any]) -> str | Model | None:
    """Return the model that all agents of a run use, if any."""
    config = options.get("run_config") or {}
    return config.get("model") if isinstance(config, dict) else config.model


def model_name(agent: Agent[Any], configured: str | Model | None) -> str:
    """Return the name of the model that an agent uses."""
    model = agent.model if configured is None or configured == "" else configured
    if model is None or model == "":
        model = get_default_model()
    return to_name(model if isinstance(model, str) else getattr(model, "model", None), default=type(model).__name__)


def listening_config(given: RunConfig | dict[str, Any] | None) -> RunConfig | dict[str, Any]:
    """Return a config whose formatter of tool errors notes each of them with the tool that is open in its task."""
    # Of a config that is no RunConfig, the SDK owns the model provider, and closes it.
    if isinstance(given, RunConfig):
        return replace(given, tool_error_formatter=_ErrorListener(given.tool_error_formatter))
    given = given or {}
    return {**given, "tool_error_formatter": _ErrorListener(given.get("tool_error_formatter"))}


class _ErrorListener:
    """A formatter of tool errors that only notes them; the text for the model is up to the application's, if any."""

    def __init__(self, formatter: ToolErrorFormatter | None) -> None:
        self._formatter = formatter

    def __call__(self, report: ToolErrorFormatterArgs[Any]) -> Any:
        """Note the error, unless it is that of a tool of an agent in the open tool, which is not recorded itself."""
        active = active_run.get()
        if report.error is not None and active and active.tool and active.tool.key is report.run_context:
            active.tool.error = report.error
        return self._formatter(report) if self._formatter else None


def _failure_of(context: RunContextWrapper[Any], tool: Tool, result: object) -> BaseException | None:
    """Return the failure that a result stands for, if no _ErrorListener noted it: the SDK makes a text of it.

    Of a tool with a `failure_error_function` of its own, it is known only while the SDK traces.
    """
    if not isinstance(tool, FunctionTool):
        return None
    error = getattr(get_current_span(), "error", None)
    if error is not None:
        message = (error.get("data") or {}).get("error") or error["message"]
        is_cancelled = "cancelled" in error["message"]
        return asyncio.CancelledError(message) if is_cancelled else UserError(str(message))
    if not isinstance(result, str):
        return None
    if tool.timeout_seconds is not None and result == default_tool_timeout_error_message(
        tool_name=tool.name, timeout_seconds=tool.timeout_seconds
    ):
        return ToolTimeoutError(tool.name, tool.timeout_seconds)
    if result == default_tool_error_function(context, Exception()):
        was_noted = _is_listening(context) and not _is_agent(tool)
        return asyncio.CancelledError("the tool was cancelled") if was_noted else UserError(result)
    return None


def _is_listening(context: RunContextWrapper[Any]) -> bool:
    """Return whether an exception of a tool would have been noted, so that there was only a cancellation."""
    config = context.run_config if isinstance(context, ToolContext) else None
    return config is not None and isinstance(config.tool_error_formatter, _ErrorListener)


def _is_agent(tool: FunctionTool) -> bool:
    """Return whether a tool is an agent: the SDK makes a text of its errors without asking the formatter."""
    origin = get_function_tool_origin(tool)
    return origin is not None and origin.type is ToolOriginType.AGENT_AS_TOOL


def _key(context: RunContextWrapper[Any], tool: Tool) -> Hashable:
    return context if isinstance(tool, FunctionTool) else (context, tool.name)


def _start_tool(active: ActiveRun, recorder: RunRecorder, context: RunContextWrapper[Any], tool: Tool) -> None:
    key = _key(context, tool)
    if not isinstance(tool, FunctionTool) or not isinstance(context, ToolContext):
        recorder.start_tool(key, tool.name)
        return
    started = recorder.start_tool(key, tool.name, context.tool_arguments, context.tool_call_id)
    # In the task of this one call, and so in what starts in it.
    _scope.enter(active.run, started.step_id)
    active_run.set(replace(active, tool=started))
    if task := asyncio.current_task():
        task.add_done_callback(lambda ended: active.record(lambda recorder: _end_task(recorder, key, ended)))


def _end_task(recorder: RunRecorder, key: Hashable, task: "asyncio.Task[Any]") -> None:
    if task.cancelled():
        recorder.finish_tool(key, error=asyncio.CancelledError("cut off"))
    elif error := task.exception():
        cause = error.__cause__ if isinstance(error, UserError) else None
        recorder.finish_tool(key, error=cause or error)
    else:
        recorder.defer_tool(key)
