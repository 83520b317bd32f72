"""Events of spans, which say what attributes of the span would say in other vocabularies."""

from collections.abc import Iterable
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lavant.server.otlp.content import MAX_SCORES, score_of
from lavant.server.otlp.findings import Findings, find
from lavant.server.otlp.vocabularies import EVENTS
from lavant.server.otlp.vocabularies.vocabulary import EventKind

_MAX_EVENTS: Final = 10_000


def add_events(found: Findings | None, events: Iterable[Span.Event]) -> Findings | None:
    """Add what a span's events say to what its attributes say, which takes precedence."""
    for event in events:
        kind = EVENTS.get(event.name)
        if kind is None:
            continue
        said = find(event.attributes) or Findings()
        found = found or Findings()
        if kind is EventKind.EXCEPTION:
            found.exception = said
        elif kind is EventKind.SCORE:
            if len(found.scores) < MAX_SCORES and (score := score_of(said)) is not None:
                found.scores.append(score)
        elif kind is EventKind.DETAILS:
            for meaning, value in said.values.items():
                found.put(meaning, value)
    return found
