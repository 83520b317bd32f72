"""The events of a streamed agent: eight types, each with data of JSON values."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class StreamEventType(StrEnum):
    """The type of an event.

    Example:
        assert StreamEventType("tool_start") is StreamEventType.TOOL_START
    """

    LLM_CHUNK = "llm_chunk"
    TOOL_START = "tool_start"
    TOOL_END = "tool_end"
    PROGRESS = "progress"
    PARTIAL_RESULT = "partial_result"
    ERROR = "error"
    AGENT_START = "agent_start"
    AGENT_END = "agent_end"


@dataclass(frozen=True)
class StreamEvent:
    """An event of an agent. The fields of `data` depend on the type: see the factory of each type.

    Example:
        event = llm_chunk_event("It is cold.")
        assert (event.event_type, event.data) == ("llm_chunk", {"text": "It is cold."})
    """

    event_type: StreamEventType
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    data: dict[str, Any] = field(default_factory=dict)


def llm_chunk_event(text: str, **extra: Any) -> StreamEvent:
    """Return an event for more text of the model.

    Example:
        assert llm_chunk_event("It is").data == {"text": "It is"}
    """
    return StreamEvent(StreamEventType.LLM_CHUNK, data={"text": text, **extra})


def tool_start_event(tool_name: str, args: dict[str, Any] | None = None, **extra: Any) -> StreamEvent:
    """Return an event for the start of a tool call.

    Example:
        assert tool_start_event("search_web", {"q": "Oslo"}).data["args"] == {"q": "Oslo"}
    """
    return StreamEvent(StreamEventType.TOOL_START, data={"tool_name": tool_name, "args": args or {}, **extra})


def tool_end_event(
    tool_name: str, result: Any = None, error: str | None = None, duration_seconds: float = 0.0, **extra: Any
) -> StreamEvent:
    """Return an event for the end of a tool call: with a result, or with an error.

    Example:
        assert tool_end_event("search_web", error="no network").data["error"] == "no network"
    """
    data = {"tool_name": tool_name, "result": result, **_known(error=error), "duration_seconds": duration_seconds}
    return StreamEvent(StreamEventType.TOOL_END, data={**data, **extra})


def progress_event(
    iteration: int,
    total_tokens: int | None = None,
    total_cost_usd: float | None = None,
    max_iterations: int | None = None,
    **extra: Any,
) -> StreamEvent:
    """Return an event for the progress of the agent. What is None is left out.

    Example:
        assert progress_event(2, total_tokens=900).data == {"iteration": 2, "total_tokens": 900}
    """
    known = _known(total_tokens=total_tokens, total_cost_usd=total_cost_usd, max_iterations=max_iterations)
    return StreamEvent(StreamEventType.PROGRESS, data={"iteration": iteration, **known, **extra})


def partial_result_event(result: Any, complete: bool = False, **extra: Any) -> StreamEvent:
    """Return an event for a result before the end. For your own use: agents of pydantic-ai have none.

    Example:
        assert partial_result_event(["Oslo"]).data == {"result": ["Oslo"], "complete": False}
    """
    return StreamEvent(StreamEventType.PARTIAL_RESULT, data={"result": result, "complete": complete, **extra})


def error_event(error: str, exception_type: str = "", **extra: Any) -> StreamEvent:
    """Return an event for the failure of the agent.

    Example:
        assert error_event("no such city", "LookupError").data["exception_type"] == "LookupError"
    """
    return StreamEvent(StreamEventType.ERROR, data={"error": error, "exception_type": exception_type, **extra})


def agent_start_event(agent_name: str, prompt: Any = None, **extra: Any) -> StreamEvent:
    """Return an event for the start of the agent.

    Example:
        assert agent_start_event("weather-agent", "How is it?").data["prompt"] == "How is it?"
    """
    return StreamEvent(StreamEventType.AGENT_START, data={"agent_name": agent_name, "prompt": prompt, **extra})


def agent_end_event(
    agent_name: str,
    success: bool = True,
    total_iterations: int = 0,
    total_tokens: int | None = None,
    total_cost_usd: float | None = None,
    duration_seconds: float = 0.0,
    **extra: Any,
) -> StreamEvent:
    """Return an event for the end of the agent.

    Example:
        assert agent_end_event("weather-agent", total_iterations=2).data["success"]
    """
    data = {"agent_name": agent_name, "success": success, "total_iterations": total_iterations}
    known = _known(total_tokens=total_tokens, total_cost_usd=total_cost_usd)
    return StreamEvent(StreamEventType.AGENT_END, data={**data, **known, "duration_seconds": duration_seconds, **extra})


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
