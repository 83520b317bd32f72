"""A model's response while it streams in, as events of one message."""

from collections.abc import Callable

from pydantic_ai.messages import (
    ModelResponse,
    ModelResponsePart,
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
from pydantic_ai.usage import RequestUsage

from lavant.client import AsyncRunProducer, Usage
from lavant.client.integrations._message_recorder import MessageRecorder


class ResponseRecorder:
    """Publishes one response's message, from its first part to `finish`. Only queues, never waits.

    `call_id` renames the tool calls.
    """

    def __init__(self, run: AsyncRunProducer, step_id: str, model: str, call_id: Callable[[str], str]) -> None:
        self._message = MessageRecorder(run, step_id, model)
        self._call_id = call_id
        # The framework counts parts within a response, and speaks of them by their number.
        self._open_calls: dict[int, ToolCallPart] = {}

    def add(self, event: PartStartEvent | PartDeltaEvent | PartEndEvent) -> None:
        """Publish what a part begins with, or is continued by."""
        match event:
            case PartStartEvent(index=index, part=part):
                self._begin(index, part)
            case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                self._say(self._message.text, text)
            case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text))):
                self._say(self._message.reasoning, text)
            case PartDeltaEvent(index=index, delta=ToolCallPartDelta() as delta):
                if (call := self._open_calls.get(index)) is not None:
                    self._open_calls[index] = delta.apply(call)
                    self._message.tool_arguments(self._call_id(call.tool_call_id), call.tool_name, delta.args_delta)
            case PartEndEvent(index=index, part=ToolCallPart() as call):
                if self._open_calls.pop(index, None) is not None:
                    self._fill(call)

    def finish(self, response: ModelResponse | None) -> None:
        """Publish the whole: of a response that did not come, what there was of it."""
        if response is None:
            self._message.finish("error")
            return
        if self._message.is_empty:
            for index, part in enumerate(response.parts):
                self._begin(index, part)
        unfilled = {call.tool_call_id for call in self._open_calls.values()}
        for call in response.tool_calls:
            if call.tool_call_id in unfilled:
                self._fill(call)
        self._message.finish(response.finish_reason or "", usage_of(response.usage))

    def _begin(self, index: int, part: ModelResponsePart) -> None:
        if isinstance(part, TextPart):
            self._say(self._message.text, part.content)
        elif isinstance(part, ThinkingPart):
            self._say(self._message.reasoning, part.content)
        elif isinstance(part, ToolCallPart):
            self._open_calls[index] = part
            self._message.tool_arguments(self._call_id(part.tool_call_id), part.tool_name, part.args)

    def _say(self, say: Callable[[str], None], text: str) -> None:
        # A message with calls that are not whole yet cannot be split, however long it grows.
        for index, call in list(self._open_calls.items()):
            if _is_whole(call):
                self._fill(self._open_calls.pop(index))
        say(text)

    def _fill(self, call: ToolCallPart) -> None:
        self._message.tool_call(self._call_id(call.tool_call_id), call.tool_name, call.args)


def _is_whole(call: ToolCallPart) -> bool:
    """Tell whether the arguments are an object: no beginning of one is."""
    try:
        call.args_as_dict(raise_if_invalid=True)
    except (ValueError, AssertionError):
        return False
    return bool(call.args)


def usage_of(usage: RequestUsage) -> Usage:
    """Translate a request's usage."""
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_input_tokens=usage.cache_read_tokens,
        cache_creation_input_tokens=usage.cache_write_tokens,
        reasoning_output_tokens=getattr(usage, "output_reasoning_tokens", 0),
        requests=usage.requests,
        cost_usd=None if (cost := getattr(usage, "cost", None)) is None else float(cost),
    )
