"""A model's answer as LangChain reports it, token by token or whole, as one message."""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

from lavant.client import Usage
from lavant.client.integrations._answer_calls import AnswerCalls
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._message_recorder import Kind, MessageRecorder
from lavant.client.integrations._reading import count, field, items
from lavant.client.integrations._tool_call_ids import ToolCallIds
from lavant.contract.text import to_text

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}
_DELTAS: dict[str, tuple[Kind, str]] = {
    "text-delta": ("text", "text"),
    "reasoning-delta": ("reasoning", "reasoning"),
}


class AnswerRecorder:
    """Publishes one answer's message, from its first token to `finish`. Only queues, never waits.

    What was streamed is not repeated when the whole arrives. Of several candidates, only the first is recorded. What
    of an answer cannot be read is lost alone: the message finishes in any case.
    """

    def __init__(self, message: MessageRecorder, ids: ToolCallIds, guard: Guard) -> None:
        self.calls = AnswerCalls(message, ids)
        self._message = message
        self._guard = guard
        self._source: str | None = None

    def token(self, text: object, chunk: object) -> None:
        """Publish a token, or the parts of a chunk."""
        if not self._is_from("tokens"):
            return
        if not issubclass(type(chunk), ChatGenerationChunk):
            self._message.text(text)
            return
        message = chunk.message  # type: ignore[attr-defined]
        for kind, said in _said(message):
            self._say(kind, said)
        for call in items(message, "tool_call_chunks"):
            self.calls.add_arguments(*(field(call, part) for part in ("index", "id", "name", "args")))

    def event(self, event: Mapping[str, Any]) -> None:
        """Publish the text and the reasoning of a protocol event, the other way in which LangChain streams."""
        if event.get("event") == "content-block-delta" and self._is_from("events"):
            delta = event.get("delta")
            kind, name = _DELTAS.get(to_text(field(delta, "type")), ("text", ""))
            self._say(kind, field(delta, name))

    def finish(self, result: object) -> Usage:
        """Publish the whole: of an answer that did not come, what there was of it."""
        usage, reason = Usage(requests=1), "error"
        if issubclass(type(result), LLMResult):
            reason = ""
            message = message_of(result)
            with self._guard:
                self._message.complete(_said(message))
            for call in items(message, "tool_calls", "invalid_tool_calls"):
                with self._guard:
                    self.calls.set_whole(*(field(call, part) for part in ("id", "name", "args")))
            with self._guard:
                usage = usage_of(message, result)
            with self._guard:
                reason = _finish_reason(result, message)
        with self._guard:
            self._message.finish(reason, usage)
        return usage

    def _is_from(self, source: str) -> bool:
        # Some models report each chunk in both ways; the first one that is used counts.
        self._source = self._source or source
        return self._source == source

    def _say(self, kind: Kind, said: object) -> None:
        if kind == "text":
            self._message.text(said)
        else:
            self._message.reasoning(said)


def message_of(result: object) -> BaseMessage:
    """Return the first candidate: of a model that only completes text, as a message with that text."""
    candidate = _first_candidate(result)
    if issubclass(type(candidate), ChatGeneration):
        message: BaseMessage = candidate.message  # type: ignore[attr-defined]
        return message
    return AIMessage(to_text(getattr(candidate, "text", None)))


def described(message: object) -> Iterator[dict[str, Any]]:
    """Return what a message says, as `{"role": "user", "content": ...}`; a tool call as one of its own."""
    if not issubclass(type(message), BaseMessage):
        yield {"role": "user", "content": message}
        return
    kind, content = to_text(field(message, "type")), field(message, "content")
    role = _ROLES.get(kind) or to_text(field(message, "role")) or kind
    if issubclass(type(message), ToolMessage):
        name, call_id = field(message, "name"), field(message, "tool_call_id")
        yield {"role": "tool", "tool_name": name, "content": content, "tool_call_id": call_id}
        return
    calls = list(items(message, "tool_calls", "invalid_tool_calls"))
    if not calls or (issubclass(type(content), str) and content):
        yield {"role": role, "content": content}
    for call in calls:
        name, call_id = field(call, "name"), field(call, "id")
        yield {"role": role, "tool_call": name, "arguments": field(call, "args"), "tool_call_id": call_id}


def usage_of(message: object, result: object) -> Usage:
    """Translate a request's usage."""
    counted = field(message, "usage_metadata")
    if counted is None:
        counted = field(field(result, "llm_output"), "token_usage", "usage")
    given = count(field(counted, "input_tokens", "prompt_tokens"))
    made = count(field(counted, "output_tokens", "completion_tokens"))
    details, made_details = field(counted, "input_token_details"), field(counted, "output_token_details")
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cache_read_input_tokens=count(field(details, "cache_read")),
        cache_creation_input_tokens=count(field(details, "cache_creation")),
        reasoning_output_tokens=count(field(made_details, "reasoning")),
        requests=1,
    )


def _said(message: object) -> Iterator[tuple[Kind, str]]:
    """Return the text and the reasoning of a message; what a model refused with is text."""
    content, more = field(message, "content"), field(message, "additional_kwargs")
    if issubclass(type(content), str):
        found = [("reasoning", field(more, "reasoning_content")), ("text", content)]
    else:
        found = [said for block in _blocks(message) for said in _said_in(block)]
    found.append(("text", field(more, "refusal")))
    for kind, text in found:
        if issubclass(type(text), str):
            yield kind, text  # type: ignore[misc]


def _said_in(block: object) -> Iterator[tuple[Kind, object]]:
    kind = to_text(field(block, "type"))
    if kind == "non_standard":
        yield from _said_in(field(block, "value"))
    elif kind == "refusal":
        yield "text", field(block, "refusal")
    elif kind in {"text", "output_text"}:
        yield "text", field(block, "text")
    elif kind in {"reasoning", "thinking"}:
        yield "reasoning", field(block, "reasoning", "thinking", "text")
        for thought in items(block, "summary"):
            yield "reasoning", field(thought, "text")


def _blocks(message: object) -> list[object]:
    try:
        return list(message.content_blocks)  # type: ignore[attr-defined]
    except Exception:  # its translators expect whole blocks
        return [
            {"type": "text", "text": item} if issubclass(type(item), str) else item
            for item in items(message, "content")
        ]


def _first_candidate(result: object) -> object:
    candidates = (some for some in items(result, "generations") if issubclass(type(some), list))
    return next((candidate for some in candidates for candidate in some), None)  # type: ignore[attr-defined]


def _finish_reason(result: object, message: object) -> str:
    info, metadata = field(_first_candidate(result), "generation_info"), field(message, "response_metadata")
    reasons = (field(told, "finish_reason", "stop_reason") for told in (metadata, info))
    return next((reason for reason in reasons if isinstance(reason, str) and reason), "")
