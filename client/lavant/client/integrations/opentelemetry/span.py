"""Reads a span by OpenTelemetry's GenAI conventions. Pure."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

from lavant.client import ErrorInfo, RunCancelled, RunFailed, RunResult, RunState, Usage
from lavant.client._wire import json_text as _json
from lavant.client.integrations.recording.reading import count
from lavant.contract.limits import NANOS, YEAR_9999
from lavant.contract.text import to_name, to_text

_KINDS = {
    "chat": "model_request",
    "text_completion": "model_request",
    "generate_content": "model_request",
    "execute_tool": "tool",
    "invoke_agent": "agent",
}
_OUTPUTS = ("gen_ai.output.messages", "gen_ai.completion")
_USAGE = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cache_read_input_tokens": ("gen_ai.usage.cache_read.input_tokens",),
    "cache_creation_input_tokens": ("gen_ai.usage.cache_creation.input_tokens",),
}
_OWN_PACKAGE = "lavant.v1."


class SpanSnapshot(NamedTuple):
    """A span as it is now, without what the application sets later. Times are in nanoseconds."""

    context: SpanContext
    parent: SpanContext | None
    name: str
    attributes: Mapping[str, Any]
    start: int
    end: int
    error: Exception | None = None

    @classmethod
    def of(cls, span: ReadableSpan) -> "SpanSnapshot":
        """Return the snapshot of a span that is open or has ended. Never raises."""
        start = _time(span.start_time, time.time_ns())
        attributes = _attributes(span)
        name = to_name(span.name, default="span")
        end = max(start, _time(span.end_time, time.time_ns()))
        return cls(span.context, span.parent, name, attributes, start, end, _error(span, attributes))

    @property
    def kind(self) -> str:
        """The kind of its step."""
        return _KINDS.get(to_text(self.attributes.get("gen_ai.operation.name")), "workflow")

    @property
    def model(self) -> str:
        """The name of the model that answered, else of the requested one."""
        return to_name(self._text("gen_ai.response.model", "gen_ai.request.model"))

    @property
    def tool_name(self) -> str:
        """The name of the tool; the span's own if it has none."""
        return self._text("gen_ai.tool.name") or self.name

    @property
    def call_id(self) -> str:
        """The model's id of the tool call; empty if the span has none."""
        return self._text("gen_ai.tool.call.id")

    @property
    def arguments(self) -> Any:
        """The arguments of the tool call, None while they are not known."""
        return self.attributes.get("gen_ai.tool.call.arguments")

    @property
    def input(self) -> Any:
        """The input of the step."""
        return _json.decode(self._text("gen_ai.input.messages", "gen_ai.prompt"))

    @property
    def output(self) -> Any:
        """The output of the step."""
        names = ("gen_ai.tool.call.result",) if self.kind == "tool" else ("final_result", *_OUTPUTS)
        return _json.decode(self._text(*names))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """A model's messages, with parts."""
        found = _json.decode(self._text(*_OUTPUTS))
        if isinstance(found, str):
            return [{"parts": [{"type": "text", "content": found}]}]
        return [message for message in found if isinstance(message, dict)] if isinstance(found, list) else []

    @property
    def usage(self) -> Usage | None:
        """The usage that the span reports, None if it reports none."""
        counts = {field: self._count(*names) for field, names in _USAGE.items()}
        if not any(counts.values()):
            return None
        return Usage(model=self.model, requests=int(self.kind == "model_request"), **counts)

    def _text(self, *names: str) -> str:
        for name in names:
            if (value := self.attributes.get(name)) not in (None, ""):
                return value if isinstance(value, str) else _json.encode(value)
        return ""

    def _count(self, *names: str) -> int:
        return next((number for name in names if (number := count(self.attributes.get(name)))), 0)


def is_call_to_lavant(span: ReadableSpan) -> bool:
    """Return whether a span is that of a call to lavant: recording it would make calls without end."""
    attributes = span.attributes or {}
    # Older conventions have the service and the method apart, newer ones the full name as the method.
    called = (attributes.get("rpc.service"), attributes.get("rpc.method"))
    return any(isinstance(name, str) and f"{name.lstrip('/')}.".startswith(_OWN_PACKAGE) for name in called)


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    try:
        return dict(span.attributes or {})
    except (KeyError, RuntimeError):  # another thread is setting some
        return {}


def _time(value: object, default: int) -> int:
    """Return a time that events may have, else the default."""
    try:
        nanoseconds = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return default
    return nanoseconds if NANOS <= nanoseconds < YEAR_9999 * NANOS else default


def _error(span: ReadableSpan, attributes: Mapping[str, Any]) -> Exception | None:
    exceptions = [event.attributes or {} for event in span.events if event.name == "exception"]
    code = span.status.status_code
    if code is StatusCode.OK or (code is StatusCode.UNSET and not exceptions):
        return None
    last: Mapping[str, Any] = exceptions[-1] if exceptions else {}
    kind = to_text(last.get("exception.type") or attributes.get("error.type"))
    message = to_text(last.get("exception.message") or span.status.description) or kind or "failed"
    cancelled = kind.rpartition(".")[2] in {"CancelledError", "KeyboardInterrupt"}
    state = RunState.CANCELLED if cancelled else RunState.FAILED
    result = RunResult(run_id="", state=state, error=ErrorInfo(message=message, type=kind))
    return RunCancelled(result) if cancelled else RunFailed(result)
