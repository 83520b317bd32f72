"""All vocabularies, indexed by the names that occur in spans and log records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

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

HEAD: Final = 11  # characters: no prefix is shorter
_Value = TypeVar("_Value")
_Ranked = tuple[tuple[Meaning, int], ...]


class Sense(NamedTuple):
    """Meanings of an attribute, and the kinds of work that its value or its presence says."""

    meanings: _Ranked
    kinds: Mapping[str, "StepKind.ValueType"] | None
    implied: "StepKind.ValueType | None"


@dataclass(frozen=True, slots=True)
class Index:
    """Meanings of names in several vocabularies. Of the values with one meaning, that of the lowest rank counts."""

    attributes: Mapping[str, Sense]
    lists: Mapping[str, _Ranked]  # by prefixes of attributes
    heads: frozenset[str]  # of these prefixes: a look into a set is quicker than a comparison with all

    @classmethod
    def of(cls, vocabularies: tuple[Vocabulary, ...]) -> "Index":
        """Return the index of some vocabularies, the first of which takes precedence."""
        meanings: dict[str, _Ranked] = {}
        lists: dict[str, _Ranked] = {}
        rank = 0
        for vocabulary in vocabularies:
            for prefix, meaning in vocabulary.lists.items():
                lists[prefix] = (*lists.get(prefix, ()), (meaning, rank := rank + 1))
            for meaning, names in vocabulary.attributes.items():
                for name in names:
                    meanings[name] = (*meanings.get(name, ()), (meaning, rank := rank + 1))
        kinds = _merged(*(vocabulary.kinds for vocabulary in vocabularies))
        implied = _merged(*(vocabulary.implied for vocabulary in vocabularies))
        attributes = {
            name: Sense(meanings.get(name, ()), kinds.get(name), implied.get(name))
            for name in {*meanings, *kinds, *implied}
        }
        return cls(attributes, lists, frozenset(prefix[:HEAD] for prefix in lists))


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
