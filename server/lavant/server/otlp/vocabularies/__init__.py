"""All vocabularies, indexed by the names that occur in spans and log records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from lavant.server.otlp.vocabularies.adk import ADK
from lavant.server.otlp.vocabularies.claude_code import CLAUDE_CODE
from lavant.server.otlp.vocabularies.genai import GENAI
from lavant.server.otlp.vocabularies.genai_events import GENAI_EVENTS
from lavant.server.otlp.vocabularies.general import GENERAL
from lavant.server.otlp.vocabularies.langfuse import LANGFUSE
from lavant.server.otlp.vocabularies.logfire import LOGFIRE
from lavant.server.otlp.vocabularies.openinference import OPENINFERENCE
from lavant.server.otlp.vocabularies.traceloop import TRACELOOP
from lavant.server.otlp.vocabularies.vercel import VERCEL
from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

# In order of precedence.
VOCABULARIES: Final = (
    GENAI,
    GENAI_EVENTS,
    LANGFUSE,
    OPENINFERENCE,
    LOGFIRE,
    VERCEL,
    TRACELOOP,
    ADK,
    CLAUDE_CODE,
    GENERAL,
)

_Value = TypeVar("_Value")
_Ranked = tuple[tuple[Meaning, int], ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Meanings of names in several vocabularies. Of the values with one meaning, that of the lowest rank counts."""

    attributes: Mapping[str, _Ranked]
    lists: Mapping[str, _Ranked]
    kinds: Mapping[str, Mapping[str, "StepKind.ValueType"]]
    implied: Mapping[str, "StepKind.ValueType"]
    names: frozenset[str]  # of all attributes that have a meaning
    prefixes: tuple[str, ...]  # of those that hold a part of a list

    @classmethod
    def of(cls, vocabularies: tuple[Vocabulary, ...]) -> "Index":
        """Return the index of some vocabularies, the first of which takes precedence."""
        attributes: dict[str, _Ranked] = {}
        lists: dict[str, _Ranked] = {}
        rank = 0
        for vocabulary in vocabularies:
            for prefix, meaning in vocabulary.lists.items():
                lists[prefix] = (*lists.get(prefix, ()), (meaning, rank := rank + 1))
            for meaning, names in vocabulary.attributes.items():
                for name in names:
                    attributes[name] = (*attributes.get(name, ()), (meaning, rank := rank + 1))
        kinds = _merged(*(vocabulary.kinds for vocabulary in vocabularies))
        implied = _merged(*(vocabulary.implied for vocabulary in vocabularies))
        return cls(attributes, lists, kinds, implied, frozenset({*attributes, *kinds, *implied}), tuple(lists))


def _merged(*tables: Mapping[str, _Value]) -> dict[str, _Value]:
    return {name: value for table in tables for name, value in table.items()}


_SHARED: Final = tuple(vocabulary for vocabulary in VOCABULARIES if not vocabulary.prefix)
_INDEX: Final = Index.of(_SHARED)
_OWN: Final = {vocabulary.prefix: Index.of((vocabulary, *_SHARED)) for vocabulary in VOCABULARIES if vocabulary.prefix}
PREFIXES: Final = tuple(_OWN)

SPAN_NAMES: Final = _merged(*(vocabulary.span_names for vocabulary in VOCABULARIES))
SCOPES: Final = _merged(*(vocabulary.scopes for vocabulary in VOCABULARIES))
GIVEN: Final = _merged(*(vocabulary.given for vocabulary in VOCABULARIES))
WRITTEN: Final = _merged(*(vocabulary.written for vocabulary in VOCABULARIES))
EVENTS: Final[Mapping[str, EventKind]] = _merged(*(vocabulary.events for vocabulary in VOCABULARIES))


def index_of(name: str) -> Index:
    """Return the meanings of attributes of spans and records with this name."""
    if not name.startswith(PREFIXES):
        return _INDEX
    return next(index for prefix, index in _OWN.items() if name.startswith(prefix))
