"""A model's answer and conversation as LangChain reports them."""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

from lavant.client import Usage
from lavant.client._publishing.guard import Guard
from lavant.client.integrations.recording.messages import AnswerRecorder, Kind
from lavant.client.integrations.recording.reading import count, field, fields, items
from lavant.contract.text import to_text

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}
_DELTAS: dict[str, tuple[Kind, str]] = {
    "text-delta": ("text", "text"),
    "reasoning-delta": ("reasoning", "reasoning"),
}


def add_token(answer: AnswerRecorder, token: object, chunk: object) -> None:
    """Record a token, or the parts of a chunk."""
    if not issubclass(type(chunk), ChatGenerationChunk):
        answer.add("text", token)
        return
    message = chunk.message  # type: ignore[attr-defined]
    for kind, text in _content(message):
        answer.add(kind, text)
    for call in items(message, "tool_call_chunks"):
        answer.add_arguments(*fields(call, "index", "id", "name", "args"))


def add_event(answer: AnswerRecorder, event: Mapping[str, Any]) -> None:
    """Record the text and the reasoning of an event of the streaming protocol."""
    if event.get("event") == "content-block-delta":
        delta = event.get("delta")
        kind, name = _DELTAS.get(to_text(field(delta, "type")), ("text", ""))
        answer.add(kind, field(delta, name))


def finish_answer(answer: AnswerRecorder, result: object, guard: Guard) -> Usage:
    """Record the whole: of several candidates the first; of an answer that did not come, what there was of it."""
    usage = Usage(requests=1)
    if not issubclass(type(result), LLMResult):
        answer.finish(usage=usage)
        return usage
    message, reason = message_of(result), ""
    with guard:
        usage = _usage(message, result)
    with guard:
        reason = _finish_reason(result, message)
    calls = (fields(call, "id", "name", "args") for call in items(message, "tool_calls", "invalid_tool_calls"))
    answer.finish(_content(message), calls, reason, usage)
    return usage


def message_of(result: object) -> BaseMessage:
    """Return the first candidate: of a model that only completes text, as a message with that text."""
    candidate = _first_candidate(result)
    if issubclass(type(candidate), ChatGeneration):
        message: BaseMessage = candidate.message  # type: ignore[attr-defined]
        return message
    return AIMessage(to_text(getattr(candidate, "text", None)))


def describe(message: object) -> Iterator[dict[str, Any]]:
    """Return the entries of a message in a conversation: `{"role": "user", "content": ...}`, and one per tool call."""
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


def value_of(output: object) -> object:
    """Return the value of an output that readers want: a model's message, a tool's content."""
    if issubclass(type(output), LLMResult):
        return message_of(output)
    return getattr(output, "content", None) if issubclass(type(output), ToolMessage) else output


def _usage(message: object, result: object) -> Usage:
    counted = field(message, "usage_metadata")
    if counted is None:
        counted = field(field(result, "llm_output"), "token_usage", "usage")
    of_input, of_output = field(counted, "input_token_details"), field(counted, "output_token_details")
    return Usage(
        input_tokens=count(field(counted, "input_tokens", "prompt_tokens")),
        output_tokens=count(field(counted, "output_tokens", "completion_tokens")),
        cache_read_input_tokens=count(field(of_input, "cache_read")),
        cache_creation_input_tokens=count(field(of_input, "cache_creation")),
        reasoning_output_tokens=count(field(of_output, "reasoning")),
        requests=1,
    )


def _content(message: object) -> Iterator[tuple[Kind, str]]:
    """Return the text and the reasoning of a message; a refusal is text."""
    content, more = field(message, "content"), field(message, "additional_kwargs")
    if issubclass(type(content), str):
        found = [("reasoning", field(more, "reasoning_content")), ("text", content)]
    else:
        found = [part for block in _blocks(message) for part in _content_of_block(block)]
    found.append(("text", field(more, "refusal")))
    for kind, text in found:
        if issubclass(type(text), str):
            yield kind, text  # type: ignore[misc]


def _content_of_block(block: object) -> Iterator[tuple[Kind, object]]:
    kind = to_text(field(block, "type"))
    if kind == "non_standard":
        yield from _content_of_block(field(block, "value"))
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
    reasons = (field(holder, "finish_reason", "stop_reason") for holder in (metadata, info))
    return next((reason for reason in reasons if isinstance(reason, str) and reason), "")
