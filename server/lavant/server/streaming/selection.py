"""Which events a stream shows, and how it shows deltas."""

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from lavant.server.store.chunk import Chunk
from lavant.v1.event_pb2 import Event, EventType
from lavant.v1.event_service_pb2 import DeltaMode, EventBatch

_DELTAS = bytes(
    (
        EventType.EVENT_TYPE_TEXT_DELTA,
        EventType.EVENT_TYPE_REASONING_DELTA,
        EventType.EVENT_TYPE_TOOL_ARGUMENTS_DELTA,
        EventType.EVENT_TYPE_TOOL_OUTPUT_DELTA,
    )
)
_NEIGHBOURING_DELTAS = re.compile(b"|".join(re.escape(bytes((delta,))) + b"{2,}" for delta in _DELTAS))
_EVENT_TYPES = range(128)
ALL_TYPES = 0


class Span(NamedTuple):
    """The events of a chunk at indexes `start` to `stop`, exclusive."""

    chunk: Chunk
    start: int
    stop: int


class Selection:
    """Cuts out of consecutive spans what one stream shows, as bytes to be joined.

    `types` has the bit of each EventType asked for; ALL_TYPES: every one. Deltas are merged
    within what is cut at once: a reader that keeps up gets them as they were published. `shown_count`
    tells how many events were cut out so far.
    """

    def __init__(self, types: int, deltas: "DeltaMode.ValueType") -> None:
        shown = {t for t in _EVENT_TYPES if types == ALL_TYPES or types >> t & 1}
        if deltas == DeltaMode.DELTA_MODE_NONE:
            shown -= set(_DELTAS)
        self._shown = None if len(shown) == len(_EVENT_TYPES) else _runs_of(shown)
        self._merges = deltas == DeltaMode.DELTA_MODE_MERGED
        self.shown_count = 0

    def cut(self, spans: Sequence[Span]) -> Iterator[bytes | memoryview]:
        """The shown events of the spans, framed, in order."""
        if not self._merges:
            for span in spans:
                yield from self._cut(span)
        elif spans:
            yield from self._cut_merging(_joined(spans))

    def _cut(self, span: Span) -> Iterator[bytes | memoryview]:
        chunk, start, stop = span
        if self._shown is None:
            self.shown_count += stop - start
            yield chunk.slice(start, stop)
            return
        for shown in self._shown.finditer(chunk.types, start, stop):
            self.shown_count += shown.end() - shown.start()
            yield chunk.slice(shown.start(), shown.end())

    def _cut_merging(self, chunk: Chunk) -> Iterator[bytes | memoryview]:
        position = 0
        for deltas in _NEIGHBOURING_DELTAS.finditer(chunk.types):
            yield from self._cut(Span(chunk, position, deltas.start()))
            position = deltas.end()
            for piece in self._cut(Span(chunk, deltas.start(), deltas.end())):
                events = EventBatch.FromString(bytes(piece)).events
                merged = EventBatch(events=_merged(events))
                self.shown_count -= len(events) - len(merged.events)
                yield merged.SerializeToString()
        yield from self._cut(Span(chunk, position, len(chunk.types)))


def type_mask(types: Iterable["EventType.ValueType"]) -> int:
    """The bits of event types; none: ALL_TYPES."""
    return sum({1 << event_type for event_type in types})


def _runs_of(types: Collection[int]) -> re.Pattern[bytes]:
    """Finds neighbouring events of these types; of none, nothing."""
    return re.compile(b"[" + re.escape(bytes(types)) + b"]+" if types else b"(?!)")


def _joined(spans: Sequence[Span]) -> Chunk:
    """One chunk of consecutive spans."""
    ends, size = array("I"), 0
    for chunk, start, stop in spans:
        shift = size - chunk.start(start)
        ends.extend(end + shift for end in chunk.ends[start:stop])
        size = ends[-1]
    types = b"".join(chunk.types[start:stop] for chunk, start, stop in spans)
    data = b"".join(chunk.slice(start, stop) for chunk, start, stop in spans)
    return Chunk(spans[0].chunk.first_sequence + spans[0].start, types, ends, data)


def _merged(events: Iterable[Event]) -> Iterator[Event]:
    """Merge neighbouring deltas of the same part; the last one's sequence, id and times stay."""
    for _, neighbours in groupby(events, _part):
        *earlier, last = neighbours
        if earlier:
            payload = str(last.WhichOneof("payload"))
            field = "arguments" if payload == "tool_arguments_delta" else "text"
            texts = [getattr(getattr(event, payload), field) for event in (*earlier, last)]
            setattr(getattr(last, payload), field, "".join(texts))
        yield last


def _part(event: Event) -> tuple[object, ...]:
    """What deltas must share to be merged.

    One with attributes or a source of its own stays apart, so that nothing but the cuts is lost.
    """
    if event.attributes or event.HasField("source"):
        return (event.sequence,)
    delta = getattr(event, str(event.WhichOneof("payload")))
    names = ("message_id", "part_index", "tool_call_id", "tool_name")
    return (event.step_id, event.trace.SerializeToString(), *(getattr(delta, name, None) for name in names))
