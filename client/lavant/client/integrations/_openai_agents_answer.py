"""A model's response as the Agents SDK reports it, event by event or whole, as one message."""

from collections.abc import Iterator
from typing import Any

from lavant.client import Usage
from lavant.client.integrations._answer_calls import AnswerCall, AnswerCalls
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._message_recorder import Kind, MessageRecorder
from lavant.client.integrations._reading import count, field, items
from lavant.client.integrations._tool_call_ids import ToolCallIds
from lavant.contract.text import to_text

_DELTAS: dict[str, Kind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}


class AnswerRecorder:
    """Publishes one response's message, from its first event to `finish`. Only queues, never waits.

    `finish` publishes what was not streamed, or has not been read from the stream yet; what is read later is not
    repeated. What of a response cannot be read is lost alone: the message finishes in any case.
    """

    def __init__(self, message: MessageRecorder, ids: ToolCallIds, guard: Guard) -> None:
        self.is_finished = False
        self._message = message
        self._calls = AnswerCalls(message, ids)
        self._guard = guard
        self._streamed: set[str] = set()

    def add(self, event: object) -> None:
        """Publish what an event adds."""
        kind = to_text(field(event, "type"))
        if self.is_finished:
            return
        index, item = field(event, "output_index"), field(event, "item")
        if (said := _DELTAS.get(kind)) is not None:
            self._say(said, field(event, "delta"))
        elif kind == "response.output_item.added" and _is_call(item):
            self._streamed.add(to_text(index))
            self._calls.add_arguments(index, *(field(item, part) for part in ("call_id", "name", "arguments")))
        elif kind == "response.function_call_arguments.delta" and to_text(index) in self._streamed:
            self._calls.add_arguments(index, None, None, field(event, "delta"))

    def finish(self, response: object) -> list[tuple[AnswerCall, object]]:
        """Publish the whole: of a response that did not come, what there was of it. Return its tool calls."""
        calls: list[tuple[AnswerCall, object]] = []
        if self.is_finished:
            return calls
        self.is_finished = True
        if response is not None:
            with self._guard:
                self._message.complete(said for item in items(response, "output") for said in _said(item))
            for item in filter(_is_call, items(response, "output")):
                with self._guard:
                    arguments = field(item, "arguments")
                    calls.append(
                        (self._calls.set_whole(field(item, "call_id"), field(item, "name"), arguments), arguments)
                    )
        with self._guard:
            self._message.finish("error" if response is None else "", None if response is None else usage_of(response))
        return calls

    def _say(self, kind: Kind, said: object) -> None:
        if kind == "text":
            self._message.text(said)
        else:
            self._message.reasoning(said)


def usage_of(response: object) -> Usage:
    """Translate a response's usage."""
    used = field(response, "usage")
    given, made = field(used, "input_tokens_details"), field(used, "output_tokens_details")
    return Usage(
        input_tokens=count(field(used, "input_tokens")),
        output_tokens=count(field(used, "output_tokens")),
        cache_read_input_tokens=count(field(given, "cached_tokens")),
        cache_creation_input_tokens=count(field(given, "cache_write_tokens")),
        reasoning_output_tokens=count(field(made, "reasoning_tokens")),
        requests=max(count(field(used, "requests")), 1),
    )


def described(item: object) -> Iterator[dict[str, Any]]:
    """Return what an item of a conversation says, as `{"role": "user", "content": ...}`."""
    kind, role = to_text(field(item, "type")), to_text(field(item, "role"))
    if kind == "function_call":
        name, call_id = field(item, "name"), field(item, "call_id")
        yield {"role": "assistant", "tool_call": name, "arguments": field(item, "arguments"), "tool_call_id": call_id}
    elif kind == "function_call_output":
        yield {"role": "tool", "content": field(item, "output"), "tool_call_id": field(item, "call_id")}
    elif kind == "reasoning":
        yield {"role": "assistant", "reasoning": "".join(text for _, text in _said(item))}
    elif role == "assistant" and (said := "".join(text for _, text in _said(item))):
        yield {"role": role, "content": said}
    elif role:
        yield {"role": role, "content": field(item, "content")}
    else:
        yield {"role": "other", "kind": kind, "content": item}


def _is_call(item: object) -> bool:
    return to_text(field(item, "type")) == "function_call"


def _said(item: object) -> Iterator[tuple[Kind, str]]:
    kind = to_text(field(item, "type"))
    of: Kind = "reasoning" if kind == "reasoning" else "text"
    names = ("summary", "content") if kind == "reasoning" else ("content",)
    for part in items(item, *names) if kind in {"reasoning", "message"} else ():
        text = field(part, "text", "refusal")
        if issubclass(type(text), str):
            yield of, text  # type: ignore[misc]
