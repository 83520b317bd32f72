"""Meanings of the attributes of a span, of its events or of a log record, by all vocabularies at once."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from lavant.contract.text import to_name
from lavant.server.otlp.attributes import count, number, text, value_of
from lavant.server.otlp.vocabularies import HEAD, Index, index_of
from lavant.server.otlp.vocabularies.vocabulary import Meaning
from lavant.v1.event_pb2 import Score, StepKind

_WRAPPERS: Final = frozenset(
    {"message", "message_content", "tool_call", "document", "evaluation", "annotation", "prompt", "completion"}
)
_REDACTED: Final = "<REDACTED>"  # as Claude Code writes what it does not send
_MAX_DEPTH: Final = 16  # of attributes that hold parts of a list
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], _REDACTED)
_WORST: Final = 1 << 30
_NONE: Final = _WORST + 1
# Values of enums: a look-up costs more than all comparisons with them.
_UNSPECIFIED: Final = StepKind.STEP_KIND_UNSPECIFIED
_TOOL: Final = StepKind.STEP_KIND_TOOL


class Findings:
    """Values by meaning, and the kind of work that they are evidence of."""

    __slots__ = ("_ranks", "exception", "implied", "kind", "scores", "values")

    def __init__(self) -> None:
        self.values: dict[Meaning, Any] = {}
        self.kind: StepKind.ValueType | None = None  # as an attribute says; UNSPECIFIED for an unknown word
        self.implied: StepKind.ValueType | None = None
        self.exception: Findings | None = None  # the last one, of an event
        self.scores: list[Score] = []
        self._ranks: dict[Meaning, int] = {}

    @property
    def is_agent(self) -> bool:
        """Whether an agent did the work, or a model or tool of one."""
        return self.kind is not None or self.implied is not None

    def put(self, meaning: Meaning, value: Any, rank: int = _WORST) -> None:
        """Add a value, unless there is one of a lower rank. Empty ones do not count."""
        if rank < self._ranks.get(meaning, _NONE) and value not in _EMPTY:
            self.values[meaning] = value
            self._ranks[meaning] = rank

    def first(self, *meanings: Meaning) -> Any:
        """Return the value of the first of these meanings that has one; None if none has."""
        return next((self.values[meaning] for meaning in meanings if meaning in self.values), None)

    def name(self, meaning: Meaning) -> str:
        """Return a name for people; empty if there is none."""
        value = self.values.get(meaning)
        return "" if value is None else to_name(value if type(value) is str else text(value))

    def text(self, meaning: Meaning) -> str:
        """Return a text; empty if there is none."""
        value = self.values.get(meaning)
        return "" if value is None else text(value)

    def count(self, meaning: Meaning) -> int:
        """Return a number of tokens; 0 if there is none."""
        return count(self.values.get(meaning))

    def number(self, meaning: Meaning) -> float | None:
        """Return a finite number; None if there is none."""
        return number(self.values.get(meaning))


def find(attributes: Iterable[KeyValue], name: str = "") -> Findings | None:
    """Return what the attributes of a span, event or record of this name mean; None if none has a meaning."""
    index = index_of(name)
    senses, heads = index.attributes, index.heads
    found: Findings | None = None
    parts: list[KeyValue] = []
    for entry in attributes:  # a span of others has tens of them, which cost a look into a table each
        key = entry.key
        sense = senses.get(key)
        if sense is None:
            if key[:HEAD] in heads:
                parts.append(entry)
            continue
        if found is None:
            found = Findings()
        value = entry.value.string_value or value_of(entry.value)
        for meaning, rank in sense.meanings:
            found.put(meaning, value, rank)
        if sense.kinds is not None and not found.kind:
            found.kind = sense.kinds.get(text(value).lower(), _UNSPECIFIED)
        if sense.implied is not None and found.implied != _TOOL:
            found.implied = sense.implied  # what executes a tool may name the model too
    return _with_lists(found, index, parts) if parts else found


def _with_lists(found: Findings | None, index: Index, parts: list[KeyValue]) -> Findings | None:
    by_prefix: dict[str, dict[str, Any]] = {}
    for entry in parts:
        for prefix in index.lists:
            # `gen_ai.prompt.name` is no part of the list `gen_ai.prompt`.
            if entry.key.startswith(prefix) and (rest := entry.key[len(prefix) :])[:1].isdecimal():
                by_prefix.setdefault(prefix, {})[rest] = value_of(entry.value)
    for prefix, values in by_prefix.items():
        found = found or Findings()
        listed = nested(values)
        for meaning, rank in index.lists[prefix]:
            found.put(meaning, listed, rank)
    return found


def nested(values: Mapping[str, Any]) -> Any:
    """Return values by dotted path as dicts and lists: {"0.message.role": "user"} is [{"role": "user"}].

    A dict whose only key is a word such as "message", as OpenInference wraps its items, is what it holds.
    """
    root: dict[str, Any] = {}
    for path, value in values.items():
        *folders, last = path.split(".", _MAX_DEPTH)
        holder = root
        for folder in folders:
            inner = holder.setdefault(folder, {})
            if not isinstance(inner, dict):
                break
            holder = inner
        else:
            holder.setdefault(last, value)
    return _unwrapped(root)


def _unwrapped(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        return value
    if all(key.isdecimal() and len(key) < _MAX_DEPTH for key in value):
        return [_unwrapped(value[key]) for key in sorted(value, key=int)]
    if len(value) == 1 and (only := next(iter(value))) in _WRAPPERS:
        return _unwrapped(value[only])
    return {key: _unwrapped(inner) for key, inner in value.items()}
