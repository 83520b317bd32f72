"""A model's answer as LangChain tells of it, token by token or whole, as one message."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult

from lavant.client import Usage
from lavant.client.integrations._message_recorder import MessageRecorder

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData


class AnswerRecorder:
    """Publishes one answer's message, from its first token to `finish`. Only queues, never waits.

    What was streamed is not said again when the whole arrives. Of several candidates, only the first is recorded.
    `call_id` renames the tool calls; `calls` tells the new name of each.
    """

    def __init__(self, message: MessageRecorder, call_id: Callable[[str], str]) -> None:
        self.calls: dict[str, str] = {}
        self._message = message
        self._call_id = call_id
        self._speaks: str | None = None
        self._called: dict[object, tuple[str, str]] = {}

    def token(self, text: object, chunk: GenerationChunk | ChatGenerationChunk | None) -> None:
        """Publish a token, or the parts of a chunk."""
        if not self._is_from("tokens"):
            return
        if isinstance(chunk, ChatGenerationChunk):
            self._say(chunk.message)
            if isinstance(chunk.message, AIMessageChunk):
                for call in chunk.message.tool_call_chunks:
                    self._arguments(call.get("index"), call.get("id"), call.get("name"), call.get("args"))
        elif isinstance(text, str):
            self._message.text(text)

    def event(self, event: "MessagesData") -> None:
        """Publish the text and the reasoning of a protocol event, the other way in which LangChain streams."""
        if event["event"] == "content-block-delta" and self._is_from("events"):
            delta = event["delta"]
            if delta["type"] == "text-delta":
                self._message.text(delta["text"])
            elif delta["type"] == "reasoning-delta":
                self._message.reasoning(delta["reasoning"])

    def finish(self, result: LLMResult | None) -> Usage:
        """Publish the whole: of an answer that did not come, what there was of it."""
        usage = Usage(requests=1)
        if result is None:
            self._message.finish("error")
            return usage
        message = message_of(result)
        if self._message.is_empty:
            self._say(message)
        if isinstance(message, AIMessage):
            usage = usage_of(message)
            for call in (*message.tool_calls, *message.invalid_tool_calls):
                self._message.tool_call(self._rename(call["id"] or ""), call["name"] or "", call["args"] or {})
        self._message.finish(_finish_reason(result, message), usage)
        return usage

    def _is_from(self, source: str) -> bool:
        # Some models tell of each chunk in both ways; the first to speak goes on.
        self._speaks = self._speaks or source
        return self._speaks == source

    def _say(self, message: BaseMessage) -> None:
        for block in message.content_blocks:
            if block["type"] == "text":
                self._message.text(block["text"])
            elif block["type"] == "reasoning":
                self._message.reasoning(block.get("reasoning", ""))

    def _arguments(self, index: object, given: str | None, name: str | None, chunk: str | None) -> None:
        if given:
            self._called[index] = self._rename(given), name or ""
        if index in self._called:
            self._message.tool_arguments(*self._called[index], chunk)

    def _rename(self, given: str) -> str:
        return self.calls.setdefault(given, self._call_id(given or str(len(self.calls))))


def message_of(result: LLMResult) -> BaseMessage:
    """Return the first candidate: of a model that only completes text, as a message with that text."""
    candidate = next((some[0] for some in result.generations if some), None)
    if isinstance(candidate, ChatGeneration):
        return candidate.message
    return AIMessage(candidate.text if candidate else "")


def usage_of(message: AIMessage) -> Usage:
    """Translate a request's usage."""
    counted = message.usage_metadata
    if counted is None:
        return Usage(requests=1)
    given, made = counted.get("input_token_details", {}), counted.get("output_token_details", {})
    return Usage(
        input_tokens=counted["input_tokens"],
        output_tokens=counted["output_tokens"],
        cache_read_input_tokens=given.get("cache_read") or 0,
        cache_creation_input_tokens=given.get("cache_creation") or 0,
        reasoning_output_tokens=made.get("reasoning") or 0,
        requests=1,
    )


def _finish_reason(result: LLMResult, message: BaseMessage) -> str:
    told = message.response_metadata
    for candidate in (some[0] for some in result.generations if some):
        told = {**(candidate.generation_info or {}), **told}
    reason = told.get("finish_reason") or told.get("stop_reason") or ""
    return reason if isinstance(reason, str) else ""
