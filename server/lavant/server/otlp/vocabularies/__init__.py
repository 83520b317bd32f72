"""All vocabularies, indexed by the names that occur in spans and log records."""

from collections.abc import Mapping
from typing import Final

from lavant.server.otlp.vocabularies.genai import GENAI
from lavant.server.otlp.vocabularies.general import GENERAL
from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning
from lavant.v1.event_pb2 import StepKind

__all__ = ["ATTRIBUTES", "EVENTS", "IMPLIED", "KINDS", "LISTS", "SCOPES", "SPAN_NAMES", "VOCABULARIES"]

# In order of precedence.
VOCABULARIES: Final = (GENAI, GENERAL)

_Ranked = tuple[tuple[Meaning, int], ...]


def _ranked() -> tuple[dict[str, _Ranked], dict[str, _Ranked]]:
    """Return the meanings of attributes, and of prefixes of attributes, each with its rank: the lowest one counts."""
    attributes: dict[str, _Ranked] = {}
    lists: dict[str, _Ranked] = {}
    rank = 0
    for vocabulary in VOCABULARIES:
        for prefix, meaning in vocabulary.lists.items():
            lists[prefix] = (*lists.get(prefix, ()), (meaning, rank := rank + 1))
        for meaning, names in vocabulary.attributes.items():
            for name in names:
                attributes[name] = (*attributes.get(name, ()), (meaning, rank := rank + 1))
    return attributes, lists


ATTRIBUTES, LISTS = _ranked()
KINDS: Final[Mapping[str, Mapping[str, "StepKind.ValueType"]]] = {
    name: kinds for vocabulary in VOCABULARIES for name, kinds in vocabulary.kinds.items()
}
IMPLIED: Final[Mapping[str, "StepKind.ValueType"]] = {
    name: kind for vocabulary in VOCABULARIES for name, kind in vocabulary.implied.items()
}
SPAN_NAMES: Final[Mapping[str, "StepKind.ValueType"]] = {
    name: kind for vocabulary in VOCABULARIES for name, kind in vocabulary.span_names.items()
}
SCOPES: Final[Mapping[str, "StepKind.ValueType"]] = {
    name: kind for vocabulary in VOCABULARIES for name, kind in vocabulary.scopes.items()
}
EVENTS: Final[Mapping[str, EventKind]] = {
    name: kind for vocabulary in VOCABULARIES for name, kind in vocabulary.events.items()
}
