"""Streams an agent of pydantic-ai while it works: `async for event in run_stream(agent, prompt, deps)`.

Needs `pip install 'lavant[pydantic-ai]'`, and no server; with `client=` the run is recorded as well.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, cast

from typing_extensions import Unpack

from lavant.client import AsyncClient
from lavant.client.integrations.extras import extra

with extra("pydantic-ai"):
    from pydantic_ai import AgentRunResult
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.capabilities import AgentCapability
    from pydantic_ai.messages import ModelMessage, UserContent
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import UsageLimits

from lavant.client.integrations.agent_streaming.agent_events import AgentEvents
from lavant.client.integrations.agent_streaming.agent_stream import AgentStream, Feed, SelectionStream
from lavant.client.integrations.agent_streaming.stream_event import (
    StreamEvent,
    StreamEventType,
    agent_end_event,
    agent_start_event,
    error_event,
    llm_chunk_event,
    partial_result_event,
    progress_event,
    tool_end_event,
    tool_start_event,
)
from lavant.client.integrations.pydantic_ai import LavantCapability

__all__ = [
    "AgentStream",
    "SelectionStream",
    "StreamEvent",
    "StreamEventType",
    "StreamOptions",
    "agent_end_event",
    "agent_start_event",
    "collect_stream_result",
    "error_event",
    "llm_chunk_event",
    "partial_result_event",
    "progress_event",
    "run_stream",
    "run_stream_with_tools",
    "stream_text",
    "stream_tool_calls",
    "tool_end_event",
    "tool_start_event",
]

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")
Prompt = str | Sequence[UserContent] | None
History = Sequence[ModelMessage] | None


class StreamOptions(TypedDict, total=False):
    """Options of all functions of this module.

    With `client` the run is recorded, under `run_id` and with `labels`, as LavantCapability does. All others are
    passed to `agent.run` as they are. `run_id` or `labels` without `client` raise ValueError.

    Example:
        options = StreamOptions(client=client, labels={"team": "weather"})
        assert "".join([text async for text in stream_text(agent, "How is it?", **options)]) == "It is cold."
        assert (await anext(client.runs.list())).labels == {"team": "weather"}
    """

    client: AsyncClient | None
    run_id: str | None
    labels: Mapping[str, str] | None
    model: Model | str | None
    model_settings: ModelSettings | None
    usage_limits: UsageLimits | None
    conversation_id: str | None
    capabilities: Sequence[AgentCapability[Any]] | None


def run_stream(
    agent: AbstractAgent[DepsT, OutputT],
    prompt: Prompt,
    deps: DepsT = None,  # type: ignore[assignment]
    message_history: History = None,
    **options: Unpack[StreamOptions],
) -> AgentStream[AgentRunResult[OutputT]]:
    """Stream all events of an agent; after the last one, the stream's `result` is the agent's.

    AGENT_START comes first; AGENT_END last, and always, unless the stream is left before. After an agent's failure
    come an ERROR and AGENT_END with `success` False, then the stream raises its exception. Tool events have a
    `tool_call_id`, and TOOL_END an `outcome`: success, retried, failed, denied, interrupted, cancelled,
    or deferred. An agent that a tool runs is not streamed, only the tool; let the tool stream it, or record it.

    Example:
        async with run_stream(agent, "How is it in Oslo?") as stream:
            async for event in stream:
                if event.event_type is StreamEventType.LLM_CHUNK:
                    print(event.data["text"], end="")
        assert stream.result.output == "It is cold."
    """
    return _stream(agent, prompt, deps, message_history, options, leave_out=())


def run_stream_with_tools(
    agent: AbstractAgent[DepsT, OutputT],
    prompt: Prompt,
    deps: DepsT = None,  # type: ignore[assignment]
    message_history: History = None,
    emit_progress: bool = True,
    **options: Unpack[StreamOptions],
) -> AgentStream[AgentRunResult[OutputT]]:
    """Stream as `run_stream` does; without PROGRESS events unless `emit_progress`.

    Example:
        events = [event.event_type async for event in run_stream_with_tools(agent, "How is it?", emit_progress=False)]
        assert StreamEventType.TOOL_END in events and StreamEventType.PROGRESS not in events
    """
    leave_out = () if emit_progress else (StreamEventType.PROGRESS,)
    return _stream(agent, prompt, deps, message_history, options, leave_out)


def stream_text(
    agent: AbstractAgent[DepsT, OutputT],
    prompt: Prompt,
    deps: DepsT = None,  # type: ignore[assignment]
    message_history: History = None,
    **options: Unpack[StreamOptions],
) -> SelectionStream[str]:
    """Stream only the text of the model's answers.

    Example:
        async for text in stream_text(agent, "How is it in Oslo?"):
            print(text, end="")
    """
    return SelectionStream(run_stream(agent, prompt, deps, message_history, **options), _text)


def stream_tool_calls(
    agent: AbstractAgent[DepsT, OutputT],
    prompt: Prompt,
    deps: DepsT = None,  # type: ignore[assignment]
    message_history: History = None,
    **options: Unpack[StreamOptions],
) -> SelectionStream[tuple[str, dict[str, Any], Any]]:
    """Stream only tool calls, each as (name, arguments, None) and then as (name, arguments, result).

    The result is never None, so that the two are distinct: "" stands for a tool that returned None, and for a call
    that did not succeed the error stands.

    Example:
        async for name, arguments, result in stream_tool_calls(agent, "How is it in Oslo?"):
            print(name, arguments, "started" if result is None else result)
    """
    return SelectionStream(run_stream(agent, prompt, deps, message_history, **options), _tool_calls())


async def collect_stream_result(
    agent: AbstractAgent[DepsT, OutputT],
    prompt: Prompt,
    deps: DepsT = None,  # type: ignore[assignment]
    message_history: History = None,
    on_event: Callable[[StreamEvent], Awaitable[None] | None] | None = None,
    **options: Unpack[StreamOptions],
) -> tuple[AgentRunResult[OutputT], list[StreamEvent]]:
    """Run an agent to its end; return its result and all its events. `on_event` is called with each as it comes.

    Example:
        result, events = await collect_stream_result(agent, "How is it in Oslo?", on_event=print)
        assert (result.output, events[-1].event_type) == ("It is cold.", "agent_end")
    """
    events: list[StreamEvent] = []
    async with run_stream(agent, prompt, deps, message_history, **options) as stream:
        async for event in stream:
            events.append(event)
            handled = on_event(event) if on_event else None
            if inspect.isawaitable(handled):
                await handled
    return cast("AgentRunResult[OutputT]", stream.result), events


def _text(event: StreamEvent) -> str | None:
    return event.data["text"] if event.event_type is StreamEventType.LLM_CHUNK else None


def _tool_calls() -> Callable[[StreamEvent], tuple[str, dict[str, Any], Any] | None]:
    arguments: dict[str, list[dict[str, Any]]] = {}

    def select(event: StreamEvent) -> tuple[str, dict[str, Any], Any] | None:
        data = event.data
        if event.event_type is StreamEventType.TOOL_START:
            arguments.setdefault(data["tool_call_id"], []).append(data["args"])
            return data["tool_name"], data["args"], None
        if event.event_type is StreamEventType.TOOL_END:
            result = data["result"] if data["result"] is not None else data.get("error", "")
            started = arguments.get(data["tool_call_id"])
            return data["tool_name"], started.pop(0) if started else {}, result
        return None

    return select


def _stream(
    agent: AbstractAgent[DepsT, OutputT],
    prompt: Prompt,
    deps: DepsT,
    message_history: History,
    options: StreamOptions,
    leave_out: Sequence[StreamEventType],
) -> AgentStream[AgentRunResult[OutputT]]:
    recorded, passed_on = _split(options)

    async def run(feed: Feed) -> AgentRunResult[OutputT]:
        async def emit(event: StreamEvent) -> None:
            if event.event_type not in leave_out:
                await feed.put(event)

        events = AgentEvents(agent.name or "agent", emit, feed.recorded)
        await emit(events.started(prompt))
        try:
            result: AgentRunResult[OutputT] = await agent.run(
                prompt,
                deps=deps,
                message_history=message_history,
                infer_name=False,
                **{**passed_on, "capabilities": [*(passed_on.get("capabilities") or ()), *recorded, events]},
            )
        except (Exception, asyncio.CancelledError) as failure:
            feed.put_last(events.ended(failure))
            raise
        feed.put_last(events.ended())
        return result

    return AgentStream(run)


def _split(options: StreamOptions) -> tuple[list[LavantCapability[Any]], dict[str, Any]]:
    passed_on: dict[str, Any] = dict(options)
    client, run_id, labels = (passed_on.pop(name, None) for name in ("client", "run_id", "labels"))
    if client is None:
        if run_id is not None or labels is not None:
            raise ValueError("run_id and labels need a client: add client=, or leave them out")
        return [], passed_on
    return [LavantCapability(client, run_id=run_id, labels=labels)], passed_on
