"""A model's response and conversation as the Agents SDK reports them."""

from collections.abc import Iterator
from typing import Any

from lavant.client import Usage
from lavant.client._publishing.guard import Guard
from lavant.client.integrations.recording.messages import AnswerRecorder, Kind
from lavant.client.integrations.recording.reading import count, field, fields, items
from lavant.contract.text import to_text

_DELTAS: dict[str, Kind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}


def add_event(answer: AnswerRecorder, event: object) -> None:
    """Record what an event of the stream adds to an answer."""
    name, index, item = to_text(field(event, "type")), field(event, "output_index"), field(event, "item")
    if (kind := _DELTAS.get(name)) is not None:
        answer.add(kind, field(event, "delta"))
    elif name == "response.output_item.added" and _is_call(item):
        answer.add_arguments(index, *fields(item, "call_id", "name", "arguments"))
    elif name == "response.function_call_arguments.delta" and answer.has_call(index):
        answer.add_arguments(index, None, None, field(event, "delta"))


def finish_answer(answer: AnswerRecorder, response: object, guard: Guard) -> Usage:
    """Record a whole response: what was not streamed, or has not been read from the stream yet."""
    usage = Usage(requests=1)
    with guard:
        usage = _usage(response)
    content = (part for item in items(response, "output") for part in _content(item))
    calls = (fields(item, "call_id", "name", "arguments") for item in items(response, "output") if _is_call(item))
    answer.finish(content, calls, "", usage)
    return usage


def describe(item: object) -> Iterator[dict[str, Any]]:
    """Return the entry of an item in a conversation: `{"role": "user", "content": ...}`."""
    kind, role = to_text(field(item, "type")), to_text(field(item, "role"))
    if kind == "function_call":
        name, call_id = field(item, "name"), field(item, "call_id")
        yield {"role": "assistant", "tool_call": name, "arguments": field(item, "arguments"), "tool_call_id": call_id}
    elif kind == "function_call_output":
        yield {"role": "tool", "content": field(item, "output"), "tool_call_id": field(item, "call_id")}
    elif kind == "reasoning":
        yield {"role": "assistant", "reasoning": "".join(text for _, text in _content(item))}
    elif role == "assistant" and (text := "".join(text for _, text in _content(item))):
        yield {"role": role, "content": text}
    elif role:
        yield {"role": role, "content": field(item, "content")}
    else:
        yield {"role": "other", "kind": kind, "content": item}


def _usage(response: object) -> Usage:
    used = field(response, "usage")
    of_input, of_output = field(used, "input_tokens_details"), field(used, "output_tokens_details")
    return Usage(
        input_tokens=count(field(used, "input_tokens")),
        output_tokens=count(field(used, "output_tokens")),
        cache_read_input_tokens=count(field(of_input, "cached_tokens")),
        cache_creation_input_tokens=count(field(of_input, "cache_write_tokens")),
        reasoning_output_tokens=count(field(of_output, "reasoning_tokens")),
        requests=max(count(field(used, "requests")), 1),
    )


def _is_call(item: object) -> bool:
    return to_text(field(item, "type")) == "function_call"


def _content(item: object) -> Iterator[tuple[Kind, str]]:
    item_type = to_text(field(item, "type"))
    kind: Kind = "reasoning" if item_type == "reasoning" else "text"
    names = ("summary", "content") if item_type == "reasoning" else ("content",)
    for part in items(item, *names) if item_type in {"reasoning", "message"} else ():
        text = field(part, "text", "refusal")
        if issubclass(type(text), str):
            yield kind, text  # type: ignore[misc]
