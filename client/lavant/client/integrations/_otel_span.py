"""Reads a span by OpenTelemetry's GenAI conventions. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

from lavant.client import ErrorInfo, RunCancelled, RunFailed, RunResult, RunState, Usage, _json

_KINDS = {
    "chat": "model_request",
    "text_completion": "model_request",
    "generate_content": "model_request",
    "execute_tool": "tool",
    "invoke_agent": "agent",
}
_OUTPUTS = ("gen_ai.output.messages", "gen_ai.completion", "final_result")
_USAGE = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cache_read_input_tokens": ("gen_ai.usage.cache_read.input_tokens",),
    "cache_creation_input_tokens": ("gen_ai.usage.cache_creation.input_tokens",),
}
_LONGEST_NAME = 200


class Moment(NamedTuple):
    """A span as it was when it began or ended: what the application does to it later is not seen."""

    context: SpanContext
    parent: SpanContext | None
    name: str
    attributes: Mapping[str, Any]
    time: int
    error: Exception | None = None

    @classmethod
    def begun(cls, span: ReadableSpan) -> "Moment":
        """Take a span that has just begun."""
        return cls(span.context, span.parent, _name(span), dict(span.attributes or {}), span.start_time or 0)

    @classmethod
    def ended(cls, span: ReadableSpan) -> "Moment":
        """Take a span that has just ended."""
        attributes = dict(span.attributes or {})
        return cls(span.context, span.parent, _name(span), attributes, span.end_time or 0, _error(span))

    @property
    def is_call_to_lavant(self) -> bool:
        """Whether it is about recording rather than about what is recorded, which would have no end."""
        return str(self.attributes.get("rpc.service", "")).startswith("lavant.")

    @property
    def kind(self) -> str:
        """The kind of step that it is."""
        return _KINDS.get(str(self.attributes.get("gen_ai.operation.name", "")), "workflow")

    @property
    def model(self) -> str:
        """The model that answered, else the one that was asked."""
        return self._text("gen_ai.response.model", "gen_ai.request.model")

    @property
    def tool_name(self) -> str:
        """The tool at work."""
        return self._text("gen_ai.tool.name") or self.name

    @property
    def call_id(self) -> str:
        """The tool call's id, as the model named it; else the span's."""
        return self._text("gen_ai.tool.call.id") or f"{self.context.span_id:016x}"

    @property
    def arguments(self) -> Any:
        """What the tool is called with, as far as it was known when the span began."""
        return self.attributes.get("gen_ai.tool.call.arguments")

    @property
    def input(self) -> Any:
        """What the work began with."""
        return _json.decode(self._text("gen_ai.input.messages"))

    @property
    def output(self) -> Any:
        """What the work gave."""
        names = ("gen_ai.tool.call.result",) if self.kind == "tool" else ("final_result", *_OUTPUTS)
        return _json.decode(self._text(*names))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What a model said: messages with parts."""
        said = _json.decode(self._text(*_OUTPUTS[:2]))
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
        found = (self.attributes.get(name) for name in names)
        return next((value for value in found if isinstance(value, int) and value > 0), 0)


def _name(span: ReadableSpan) -> str:
    return _json.valid_text(span.name)[:_LONGEST_NAME] or "span"


def _error(span: ReadableSpan) -> Exception | None:
    exceptions = [event.attributes or {} for event in span.events if event.name == "exception"]
    code = span.status.status_code
    if code is StatusCode.OK or (code is StatusCode.UNSET and not exceptions):
        return None
    last: Mapping[str, Any] = exceptions[-1] if exceptions else {}
    kind = str(last.get("exception.type") or (span.attributes or {}).get("error.type") or "")
    message = str(last.get("exception.message") or span.status.description or kind or "failed")
    cancelled = kind.rpartition(".")[2] in {"CancelledError", "KeyboardInterrupt"}
    state = RunState.CANCELLED if cancelled else RunState.FAILED
    result = RunResult(run_id="", state=state, error=ErrorInfo(message=message, type=kind))
    return RunCancelled(result) if cancelled else RunFailed(result)
