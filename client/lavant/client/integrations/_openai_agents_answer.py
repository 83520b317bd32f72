"""A model's response as the Agents SDK tells of it, event by event or whole, as one message."""

from collections.abc import Callable, Iterator
from typing import Literal

from agents import ModelResponse
from agents.items import TResponseOutputItem, TResponseStreamEvent
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseReasoningItem

from lavant.client import Usage
from lavant.client.integrations._message_recorder import MessageRecorder

Kind = Literal["text", "reasoning"]


class AnswerRecorder:
    """Publishes one response's message, from its first event to `finish`. Only queues, never waits.

    `finish` says what was not streamed, or has not been read from the stream yet; what is read
    later is not said again. `call_id` renames the tool calls.
    """

    def __init__(self, message: MessageRecorder, call_id: Callable[[str], str]) -> None:
        self._message = message
        self._call_id = call_id
        self._said: dict[Kind, str] = {"text": "", "reasoning": ""}
        self._calls: dict[int, tuple[str, str]] = {}
        self._is_finished = False

    def add(self, event: TResponseStreamEvent) -> None:
        """Publish what an event adds."""
        if self._is_finished:
            return
        if event.type in ("response.output_text.delta", "response.refusal.delta"):
            self._say("text", event.delta)
        elif event.type in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
            self._say("reasoning", event.delta)
        elif event.type == "response.output_item.added" and isinstance(event.item, ResponseFunctionToolCall):
            self._calls[event.output_index] = self._call_id(event.item.call_id), event.item.name
            self._message.tool_arguments(*self._calls[event.output_index], event.item.arguments)
        elif event.type == "response.function_call_arguments.delta" and event.output_index in self._calls:
            self._message.tool_arguments(*self._calls[event.output_index], event.delta)

    def finish(self, response: ModelResponse | None) -> None:
        """Publish the whole: of a response that did not come, what there was of it."""
        if self._is_finished:
            return
        self._is_finished = True
        if response is None:
            self._message.finish("error")
            return
        skip = {kind: self._length_said(kind, response) for kind in self._said}
        for item in response.output:
            for kind, text in _spoken(item):
                self._say(kind, text[skip[kind] :])
                skip[kind] -= min(skip[kind], len(text))
            if isinstance(item, ResponseFunctionToolCall):
                self._message.tool_call(self._call_id(item.call_id), item.name, item.arguments)
        self._message.finish(usage=usage_of(response))

    def _length_said(self, kind: Kind, response: ModelResponse) -> int:
        whole = "".join(text for item in response.output for of, text in _spoken(item) if of == kind)
        # What was streamed otherwise than the whole has it is left as it was told.
        return len(self._said[kind] if whole.startswith(self._said[kind]) else whole)

    def _say(self, kind: Kind, chunk: str) -> None:
        self._said[kind] += chunk
        if kind == "text":
            self._message.text(chunk)
        else:
            self._message.reasoning(chunk)


def usage_of(response: ModelResponse) -> Usage:
    """Translate a response's usage."""
    used = response.usage
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_input_tokens=used.input_tokens_details.cached_tokens or 0,
        cache_creation_input_tokens=getattr(used.input_tokens_details, "cache_write_tokens", 0) or 0,
        reasoning_output_tokens=used.output_tokens_details.reasoning_tokens or 0,
        requests=max(used.requests, 1),
    )


def _spoken(item: TResponseOutputItem) -> Iterator[tuple[Kind, str]]:
    if isinstance(item, ResponseOutputMessage):
        for part in item.content:
            yield "text", part.text if part.type == "output_text" else part.refusal
    elif isinstance(item, ResponseReasoningItem):
        for thought in (*item.summary, *(item.content or ())):
            yield "reasoning", thought.text
