"""Reads a span by OpenTelemetry's GenAI conventions. Pure."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

from lavant.client import ErrorInfo, RunCancelled, RunFailed, RunResult, RunState, Usage, _json
from lavant.client.integrations._reading import count
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


class Moment(NamedTuple):
    """A span as it is now: what the application does to it later is not seen. Times are in nanoseconds."""

    context: SpanContext
    parent: SpanContext | None
    name: str
    attributes: Mapping[str, Any]
    began: int
    ended: int
    error: Exception | None = None

    @classmethod
    def of(cls, span: ReadableSpan) -> "Moment":
        """Take a span that is at work or has ended. Never raises."""
        began = _time(span.start_time, time.time_ns())
        attributes = _attributes(span)
        name = to_name(span.name, default="span")
        ended = max(began, _time(span.end_time, time.time_ns()))
        return cls(span.context, span.parent, name, attributes, began, ended, _error(span, attributes))

    @property
    def kind(self) -> str:
        """The kind of step that it is."""
        return _KINDS.get(to_text(self.attributes.get("gen_ai.operation.name")), "workflow")

    @property
    def model(self) -> str:
        """The model that answered, else the one that was asked."""
        return to_name(self._text("gen_ai.response.model", "gen_ai.request.model"))

    @property
    def tool_name(self) -> str:
        """The tool at work."""
        return self._text("gen_ai.tool.name") or self.name

    @property
    def call_id(self) -> str:
        """The tool call's id, as the model named it; empty if the span has none."""
        return self._text("gen_ai.tool.call.id")

    @property
    def arguments(self) -> Any:
        """What the tool is called with, None while it is not known."""
        return self.attributes.get("gen_ai.tool.call.arguments")

    @property
    def input(self) -> Any:
        """What the work began with."""
        return _json.decode(self._text("gen_ai.input.messages", "gen_ai.prompt"))

    @property
    def output(self) -> Any:
        """What the work gave."""
        names = ("gen_ai.tool.call.result",) if self.kind == "tool" else ("final_result", *_OUTPUTS)
        return _json.decode(self._text(*names))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What a model said: messages with parts."""
        said = _json.decode(self._text(*_OUTPUTS))
        if isinstance(said, str):
            return [{"parts": [{"type": "text", "content": said}]}]
        return [message for message in said if isinstance(message, dict)] if isinstance(said, list) else []

    @property
    def usage(self) -> Usage | None:
        """What the span says was used, None if it says nothing."""
        told = {field: self._count(*names) for field, names in _USAGE.items()}
        if not any(told.values()):
            return None
        return Usage(model=self.model, requests=int(self.kind == "model_request"), **told)

    def _text(self, *names: str) -> str:
        for name in names:
            if (value := self.attributes.get(name)) not in (None, ""):
                return value if isinstance(value, str) else _json.encode(value)
        return ""

    def _count(self, *names: str) -> int:
        return next((number for name in names if (number := count(self.attributes.get(name)))), 0)


def is_call_to_lavant(span: ReadableSpan) -> bool:
    """Tell whether a span is about recording rather than about what is recorded, which would have no end."""
    attributes = span.attributes or {}
    # The name of the method was the method's alone; newer conventions have it in full, and no service.
    called = (attributes.get("rpc.service"), attributes.get("rpc.method"))
    return any(isinstance(name, str) and f"{name.lstrip('/')}.".startswith(_OWN_PACKAGE) for name in called)


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    try:
        return dict(span.attributes or {})
    except (KeyError, RuntimeError):  # another thread sets some just now
        return {}


def _time(value: object, default: int) -> int:
    """Return a time that an event may have."""
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
