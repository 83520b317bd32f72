"""A model's response while it streams in, as events of one message."""

from decimal import Decimal
from typing import Any

from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

from lavant.client import AsyncRunProducer, Usage
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._message_recorder import MessageRecorder
from lavant.client.integrations._tool_call_ids import ToolCallIds


class _OpenCall:
    """A tool call that the model is writing."""

    __slots__ = ("call_id", "part")

    def __init__(self, call_id: str, part: ToolCallPart) -> None:
        self.call_id = call_id
        self.part = part


class ResponseRecorder:
    """Publishes one response's message, from its first part to `finish`. Only queues, never waits.

    What of a part cannot be recorded is lost alone: the message finishes in any case.
    """

    def __init__(self, run: AsyncRunProducer, step_id: str, model: str, calls: ToolCallIds, guard: Guard) -> None:
        self._message = MessageRecorder(run, step_id, model)
        self._calls = calls
        self._guard = guard
        # The framework counts parts within a response, and refers to them by their number.
        self._open_calls: dict[int, _OpenCall] = {}

    def add(self, event: ModelResponseStreamEvent) -> None:
        """Publish what a part begins with, or is continued by."""
        with self._guard:
            match event:
                case PartStartEvent(index=index, part=part):
                    self._begin(index, part)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=str(text))):
                    self._say_text(text)
                case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text))):
                    self._say_reasoning(text)
                case PartDeltaEvent(index=index, delta=ToolCallPartDelta() as delta):
                    if (call := self._open_calls.get(index)) is not None:
                        self._message.tool_arguments(call.call_id, call.part.tool_name, delta.args_delta)
                        call.part = _applied(delta, call.part)
                case PartEndEvent(index=index, part=ToolCallPart() as part):
                    if (call := self._open_calls.pop(index, None)) is not None:
                        self._fill(call.call_id, part)

    def finish(self, response: ModelResponse | None, usage: Usage | None) -> None:
        """Publish the whole: of a response that did not come, what there was of it."""
        with self._guard:
            if response is not None and self._message.is_empty:
                for index, part in enumerate(response.parts):
                    with self._guard:
                        self._begin(index, part)
        for call in self._open_calls.values():
            with self._guard:
                self._fill(call.call_id, call.part)
        reason = "error"
        with self._guard:
            reason = "error" if response is None else response.finish_reason or ""
        self._message.finish(reason, usage)

    def _begin(self, index: int, part: object) -> None:
        if isinstance(part, TextPart):
            self._say_text(part.content)
        elif isinstance(part, ThinkingPart):
            self._say_reasoning(part.content)
        elif isinstance(part, ToolCallPart):
            call = self._open_calls[index] = _OpenCall(self._calls.new(part.tool_call_id), part)
            self._message.tool_arguments(call.call_id, part.tool_name, part.args)

    def _say_text(self, text: Any) -> None:
        if isinstance(text, str):
            self._fill_whole_calls()
            self._message.text(text)

    def _say_reasoning(self, text: Any) -> None:
        if isinstance(text, str):
            self._fill_whole_calls()
            self._message.reasoning(text)

    def _fill_whole_calls(self) -> None:
        # A message with calls that are not whole yet cannot be split, however long it grows.
        for index, call in list(self._open_calls.items()):
            if _is_whole(call.part):
                self._fill(call.call_id, self._open_calls.pop(index).part)

    def _fill(self, call_id: str, part: ToolCallPart) -> None:
        self._calls.expect(part.tool_call_id, call_id)
        self._message.tool_call(call_id, part.tool_name, part.args)


def _applied(delta: ToolCallPartDelta, part: ToolCallPart) -> ToolCallPart:
    applied = delta.apply(part)
    return applied if isinstance(applied, ToolCallPart) else part


def _is_whole(call: ToolCallPart) -> bool:
    """Tell whether the arguments are an object: no beginning of one is."""
    try:
        call.args_as_dict(raise_if_invalid=True)
    except Exception:  # Also of a model that wrote 20,000 brackets.
        return False
    return bool(call.args)


def usage_of(usage: Any) -> Usage:
    """Translate a request's usage; what is no number of it is left out."""
    cost = getattr(usage, "cost", None)
    return Usage(
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        cache_read_input_tokens=_count(usage, "cache_read_tokens"),
        cache_creation_input_tokens=_count(usage, "cache_write_tokens"),
        reasoning_output_tokens=_count(usage, "output_reasoning_tokens"),
        requests=1,
        cost_usd=float(cost) if isinstance(cost, int | float | Decimal) else None,
    )


def _count(usage: object, name: str) -> int:
    count = getattr(usage, name, 0)
    return count if isinstance(count, int) and 0 <= count < 1 << 63 else 0
