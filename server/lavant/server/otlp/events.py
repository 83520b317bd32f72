"""Events of spans, and lists of events in an attribute, which say what attributes of the span say elsewhere."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lavant.server.otlp.attributes import decoded, values_of
from lavant.server.otlp.content import MAX_SCORES, score_of
from lavant.server.otlp.findings import Findings, find
from lavant.server.otlp.vocabularies import EVENTS, GIVEN, WRITTEN
from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning

_CONTENT: Final = "gen_ai.event.content"  # of some libraries: the whole message as JSON text
_NAME: Final = "event.name"
_MAX_MESSAGES: Final = 10_000
_Message = dict[str, Any]


def add_events(found: Findings | None, events: Iterable[Span.Event]) -> Findings | None:
    """Add what a span's events say to what its attributes say, which takes precedence."""
    given: list[_Message] = []
    written: list[_Message] = []
    for event in events:
        name = event.name
        if name in GIVEN or name in WRITTEN:
            _add_message(name, values_of(event.attributes), given, written)
        elif (kind := EVENTS.get(name)) is not None:
            found = found or Findings()
            _add_event(found, kind, find(event.attributes, name) or Findings())
    if given or written:
        found = found or Findings()
        found.put(Meaning.INPUT, given)
        found.put(Meaning.MESSAGES, written)
    return found


def add_listed(found: Findings) -> None:
    """Add the messages of the events that an attribute lists."""
    listed = decoded(found.values.get(Meaning.EVENTS))
    given: list[_Message] = []
    written: list[_Message] = []
    for event in listed if isinstance(listed, list) else []:
        if isinstance(event, dict) and isinstance(name := event.get(_NAME), str):
            _add_message(name, event, given, written)
    found.put(Meaning.INPUT, given)
    found.put(Meaning.MESSAGES, written)


def message_of(name: str, said: Mapping[str, Any]) -> _Message:
    """Return the message of an event: its attributes, its body, or what either has as JSON text."""
    message = dict(said)
    if isinstance(content := decoded(message.get(_CONTENT)), dict):
        message = content
    for part in ("content", "message", "tool_calls"):
        if isinstance(value := decoded(message.get(part)), list | dict):
            message[part] = value
    if isinstance(message.get("message"), str | list):  # the content alone, under that name
        message["content"] = message.pop("message")
    message.setdefault("role", GIVEN.get(name) or WRITTEN.get(name))
    return message


def _add_message(name: str, said: Mapping[str, Any], given: list[_Message], written: list[_Message]) -> None:
    messages = written if name in WRITTEN else given if name in GIVEN else None
    if messages is not None and len(messages) < _MAX_MESSAGES:
        messages.append(message_of(name, said))


def _add_event(found: Findings, kind: EventKind, said: Findings) -> None:
    if kind is EventKind.EXCEPTION:
        found.exception = said
    elif kind is EventKind.SCORE:
        if len(found.scores) < MAX_SCORES and (score := score_of(said)) is not None:
            found.scores.append(score)
    elif kind is EventKind.DETAILS:
        for meaning, value in said.values.items():
            found.put(meaning, value)
