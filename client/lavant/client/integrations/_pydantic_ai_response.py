"""A model's response while it streams in, as events of one message."""

from collections.abc import Callable

from pydantic_ai.messages import (
    ModelResponse,
    ModelResponsePart,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.usage import RequestUsage

from lavant.client import AsyncRunProducer, LavantError, Usage, _json, _payloads
from lavant.client._ids import new_id
from lavant.client._message import MessageDraft, pieces
from lavant.v1.event_pb2 import Event


class ResponseRecorder:
    """Publishes one response's message, from its first part to `finish`. Only queues, never waits.

    `call_id` renames the tool calls.
    """

    def __init__(self, run: AsyncRunProducer, step_id: str, model: str, call_id: Callable[[str], str]) -> None:
        self._run = run
        self._step_id = step_id
        self._call_id = call_id
        self._draft = MessageDraft(new_id(), model=model)
        self._tool_parts: dict[int, tuple[int, str, str]] = {}
        self._calls: dict[str, int] = {}
        self._is_empty = True
        self._enqueue(self._draft.start())

    def add(self, event: PartStartEvent | PartDeltaEvent) -> None:
        """Publish what a part begins with, or is continued by."""
        if isinstance(event, PartStartEvent):
            self._begin(event.index, event.part)
            return
        delta = event.delta
        if isinstance(delta, TextPartDelta):
            self._text(delta.content_delta)
        elif isinstance(delta, ThinkingPartDelta):
            self._reasoning(delta.content_delta)
        elif isinstance(delta, ToolCallPartDelta):
            self._arguments(event.index, delta.args_delta)

    def finish(self, response: ModelResponse | None) -> None:
        """Publish the whole: of a response that did not come, what there was of it."""
        if response is None:
            self._enqueue(self._draft.finish("error"))
            return
        if self._is_empty:
            for index, part in enumerate(response.parts):
                self._begin(index, part)
        for part in response.tool_calls:
            if (part_index := self._calls.get(part.tool_call_id)) is not None:
                call = _payloads.recorded_call(self._call_id(part.tool_call_id), part.tool_name, part.args)
                self._draft.fill(part_index, call)
        self._enqueue(self._draft.finish(response.finish_reason or "", usage_of(response.usage)))

    def _begin(self, index: int, part: ModelResponsePart) -> None:
        self._is_empty = False
        if isinstance(part, TextPart):
            self._text(part.content)
        elif isinstance(part, ThinkingPart):
            self._reasoning(part.content)
        elif isinstance(part, ToolCallPart):
            part_index = self._draft.reserve()
            self._tool_parts[index] = part_index, self._call_id(part.tool_call_id), part.tool_name
            self._calls[part.tool_call_id] = part_index
            self._arguments(index, part.args)

    def _text(self, chunk: str) -> None:
        if chunk:
            for piece in pieces(chunk):
                self._make_room(piece)
                self._say(self._draft.text(piece))

    def _reasoning(self, chunk: str | None) -> None:
        if chunk:
            for piece in pieces(chunk):
                self._make_room(piece)
                self._say(self._draft.reasoning(piece))

    def _arguments(self, index: int, arguments: object) -> None:
        if not arguments or index not in self._tool_parts:
            return
        part_index, call_id, name = self._tool_parts[index]
        chunk = arguments if isinstance(arguments, str) else _json.encode(_json.bounded(arguments))
        for piece in pieces(chunk):
            self._enqueue(self._draft.tool_arguments(call_id, name, piece, part_index))

    def _make_room(self, chunk: str) -> None:
        # A message that waits for its tool calls to become whole cannot be finished yet.
        if not self._draft.has_room(chunk) and not self._calls:
            self._enqueue(self._draft.finish())
            self._draft.renew(new_id())
            self._enqueue(self._draft.start())

    def _say(self, delta: Event) -> None:
        try:
            self._enqueue(delta)
        except LavantError:
            self._draft.take_back()
            raise

    def _enqueue(self, event: Event) -> None:
        event.step_id = self._step_id
        self._run.enqueue(event)


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
