"""How to tell that a tool failed: the Agents SDK makes a text for the model of it, and goes on."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agents import FunctionTool, RunConfig, RunContextWrapper, Tool, ToolErrorFormatterArgs, default_tool_error_function
from agents.exceptions import ToolTimeoutError, UserError
from agents.run_config import ToolErrorFormatter
from agents.tool import default_tool_timeout_error_message
from agents.tool_context import ToolContext
from agents.tracing import get_current_span


class ErrorListener:
    """A formatter of tool errors that only hears of them; what is to be said is up to the one before, if any."""

    def __init__(
        self, on_error: Callable[[RunContextWrapper[Any], Exception], None], formatter: ToolErrorFormatter | None
    ) -> None:
        self._on_error = on_error
        self._formatter = formatter

    def __call__(self, said: ToolErrorFormatterArgs[Any]) -> Any:
        """Hear of an error."""
        if said.error is not None:
            self._on_error(said.run_context, said.error)
        return self._formatter(said) if self._formatter else None


def listening(
    given: RunConfig | dict[str, Any] | None, on_error: Callable[[RunContextWrapper[Any], Exception], None]
) -> RunConfig | dict[str, Any]:
    """Return a config under which `on_error` hears of the tools' errors, each in its task and with its context."""
    # Of a config that is no RunConfig, the SDK owns the model provider, and closes it.
    if isinstance(given, RunConfig):
        return replace(given, tool_error_formatter=ErrorListener(on_error, given.tool_error_formatter))
    given = given or {}
    return {**given, "tool_error_formatter": ErrorListener(on_error, given.get("tool_error_formatter"))}


def failure_of(context: RunContextWrapper[Any], tool: Tool, result: object) -> BaseException | None:
    """Return the failure that a result stands for, if no ErrorListener has heard of it.

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
        return asyncio.CancelledError("the tool was cancelled") if _is_heard(context, tool) else UserError(result)
    return None


def _is_heard(context: RunContextWrapper[Any], tool: FunctionTool) -> bool:
    """Tell whether an exception of the tool would have been heard of, so that there was none."""
    config = context.run_config if isinstance(context, ToolContext) else None
    is_listening = config is not None and isinstance(config.tool_error_formatter, ErrorListener)
    # An agent that is a tool has the default function too, but as one of its own: then no formatter is asked.
    return is_listening and getattr(tool, "_use_default_failure_error_function", True)
