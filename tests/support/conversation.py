"""A run in which everything happens that streams treat differently."""

from collections.abc import Iterable

from lavant.v1.event_pb2 import (
    Event,
    EventType,
    ReasoningDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolOutputDelta,
)
from support import events as make

DELTA_FIELDS = {
    "text_delta": "text",
    "reasoning_delta": "text",
    "tool_arguments_delta": "arguments",
    "tool_output_delta": "text",
}


def conversation() -> list[Event]:
    """Steps, reasoning, text in two parts, a tool call with its arguments and output, a retry, an end."""
    return [
        make.run_started(),
        make.step_started("plan"),
        make.message_started("m1"),
        *(_reasoning(word) for word in ("First ", "I ", "look ")),
        *(_text("m1", 0, word) for word in ("Let ", "me ", "see")),
        *(_text("m1", 1, word) for word in ("One ", "moment")),
        _with_attributes(_text("m1", 1, ", ")),
        _text("m1", 1, "please."),
        *(_arguments("c1", piece) for piece in ('{"ci', 'ty":', '"Oslo"}')),
        *(_arguments("c2", piece) for piece in ("{", "}")),
        make.message_finished("m1"),
        make.tool_call_started("c1"),
        *(_output("c1", piece) for piece in ("-", "3", " °C")),
        make.tool_call_finished("c1"),
        make.step_finished("plan"),
        make.step_started("answer"),
        make.message_started("m2"),
        _of_step("answer", _text("m2", 0, "It ")),
        _text("m2", 0, "is "),
        make.custom(),
        *(_text("m2", 0, word) for word in ("cold", " today.")),
        make.message_finished("m2"),
        make.step_finished("answer"),
        make.run_finished(),
    ]


def type_of(event: Event) -> int:
    """An event's EventType."""
    return EventType.Value(f"EVENT_TYPE_{str(event.WhichOneof('payload')).upper()}")


def texts(events: Iterable[Event]) -> dict[tuple[object, ...], str]:
    """The text of every part and of every kind, put together from its deltas."""
    found: dict[tuple[object, ...], str] = {}
    for event in events:
        payload = str(event.WhichOneof("payload"))
        if payload in DELTA_FIELDS:
            delta = getattr(event, payload)
            part = (payload, *(getattr(delta, name, None) for name in ("message_id", "part_index", "tool_call_id")))
            found[part] = found.get(part, "") + getattr(delta, DELTA_FIELDS[payload])
    return found


def without_deltas(events: Iterable[Event]) -> list[Event]:
    """The events that no DeltaMode changes."""
    return [event for event in events if event.WhichOneof("payload") not in DELTA_FIELDS]


def _text(message_id: str, part_index: int, text: str) -> Event:
    return make.identified(Event(text_delta=TextDelta(message_id=message_id, part_index=part_index, text=text)))


def _reasoning(text: str) -> Event:
    return make.identified(Event(reasoning_delta=ReasoningDelta(message_id="m1", text=text)))


def _arguments(tool_call_id: str, arguments: str) -> Event:
    delta = ToolArgumentsDelta(message_id="m1", tool_call_id=tool_call_id, tool_name="search", arguments=arguments)
    return make.identified(Event(tool_arguments_delta=delta))


def _output(tool_call_id: str, text: str) -> Event:
    return make.identified(Event(tool_output_delta=ToolOutputDelta(tool_call_id=tool_call_id, text=text)))


def _with_attributes(event: Event) -> Event:
    event.attributes["language"] = "en"
    return event


def _of_step(step_id: str, event: Event) -> Event:
    event.step_id = step_id
    return event
