"""Reading a run's log for one stream: the next events, from memory or the store, and how they are shown."""

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from lavant.server.errors import data_loss
from lavant.server.model import RunKey
from lavant.server.slices import in_slices
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import Engine
from lavant.server.streaming.frames import MAX_FRAME_BYTES
from lavant.server.streaming.hub import Tail
from lavant.v1.event_pb2 import Event, EventType
from lavant.v1.event_service_pb2 import DELTA_MODE_MERGED, DELTA_MODE_NONE, DeltaMode, EventBatch

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
_FEW = 64  # events that are cut without a pause


class Span(NamedTuple):
    """The events of a chunk at indexes `start` to `stop`, exclusive."""

    chunk: Chunk
    start: int
    stop: int


class Selection:
    """Cuts the events that one stream shows out of consecutive spans, as bytes to be joined.

    `types` has the bit of each EventType asked for; ALL_TYPES: every one. Deltas are merged
    within what is cut at once: a reader that keeps up gets them as they were published. `shown_count`
    is the number of events that were cut out so far.
    """

    def __init__(self, types: int, deltas: "DeltaMode.ValueType") -> None:
        self._shown = _shown(types, deltas)
        self._merges = deltas == DELTA_MODE_MERGED
        self.shown_count = 0

    def is_long(self, spans: Sequence[Span]) -> bool:
        """Return whether it may take long to cut these spans."""
        selects = self._merges or self._shown is not None
        return selects and sum(stop - start for _, start, stop in spans) > _FEW

    def runs(self, chunk: Chunk, start: int) -> Iterator[tuple[int, int]]:
        """Yield the bounds of neighbouring events that are shown, unmerged, from an index of a chunk on."""
        if self._shown is None:
            yield start, len(chunk.types)
            return
        for shown in self._shown.finditer(chunk.types, start):
            yield shown.span()

    def cut(self, spans: Sequence[Span]) -> Iterator[bytes | memoryview]:
        """Yield the shown events of the spans, framed, in order; empty pieces stand where nothing is ready yet."""
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
                yield from self._merged(piece)
        yield from self._cut(Span(chunk, position, len(chunk.types)))

    def _merged(self, deltas: bytes | memoryview) -> Iterator[bytes]:
        """Yield neighbouring deltas merged, and empty pieces meanwhile."""
        for _, neighbours in groupby(EventBatch.FromString(bytes(deltas)).events, _part):
            same: list[Event] = []
            for event in neighbours:
                same.append(event)
                yield b""
            self.shown_count -= len(same) - 1
            yield EventBatch(events=[_merge(same)]).SerializeToString()


class Batch(NamedTuple):
    """Events that one read shows, and the commit of the first one in monotonic time; None: unknown."""

    events: Sequence[bytes | memoryview] = ()
    shown_count: int = 0
    committed_at: float | None = None


class LogReader:
    """Reads a run's events in order, a frame's worth at a time, each exactly once.

    With a `tail`, from its memory where it can.
    """

    __slots__ = ("_created_ns", "_engine", "_key", "_selection", "sequence", "tail")

    def __init__(self, engine: Engine, key: RunKey, selection: Selection) -> None:
        self.sequence = 0
        self.tail: Tail | None = None
        self._created_ns: int | None = None
        self._engine = engine
        self._key = key
        self._selection = selection

    def begin(self, sequence: int, created_ns: int) -> None:
        """Continue after a sequence, in the run that was created at this time and in no other with its ID."""
        self.sequence, self._created_ns = sequence, created_ns

    async def read(self, limit: int) -> Batch:
        """Advance by at most a frame, up to `limit`, and return the events that the selection shows.

        Raises DATA_LOSS if an event is missing.
        """
        chunks: Sequence[Chunk] | None = None if self.tail is None else self.tail.after(self.sequence)
        if chunks is None:
            chunks = await self._engine.read(self._key, self.sequence, MAX_FRAME_BYTES, self._created_ns)
        spans = _spans(chunks, self.sequence, limit)
        if not spans:
            raise data_loss(f"events after {self.sequence} of run {self._key.run_id} are missing")
        shown_before = self._selection.shown_count
        cut = self._selection.cut(spans)
        events = [piece for piece in (await in_slices(cut) if self._selection.is_long(spans) else cut) if piece]
        last = spans[-1]
        self.sequence = last.chunk.first_sequence + last.stop - 1
        return Batch(events, self._selection.shown_count - shown_before, spans[0].chunk.committed_at)


def type_mask(types: Iterable["EventType.ValueType"]) -> int:
    """Return the bits of event types, ALL_TYPES for none."""
    return sum({1 << event_type for event_type in types})


@lru_cache
def _shown(types: int, deltas: "DeltaMode.ValueType") -> re.Pattern[bytes] | None:
    """Return a pattern of neighbouring events that are shown; None if all are."""
    shown = {t for t in _EVENT_TYPES if types == ALL_TYPES or types >> t & 1}
    if deltas == DELTA_MODE_NONE:
        shown -= set(_DELTAS)
    return None if len(shown) == len(_EVENT_TYPES) else _runs_of(shown)


def _runs_of(types: Collection[int]) -> re.Pattern[bytes]:
    """Return a pattern of neighbouring events of these types; it matches nothing if there are none."""
    return re.compile(b"[" + re.escape(bytes(types)) + b"]+" if types else b"(?!)")


def _joined(spans: Sequence[Span]) -> Chunk:
    """Return one chunk of consecutive spans."""
    ends, size = array("I"), 0
    for chunk, start, stop in spans:
        shift = size - chunk.start(start)
        ends.extend(end + shift for end in chunk.ends[start:stop])
        size = ends[-1]
    types = b"".join(chunk.types[start:stop] for chunk, start, stop in spans)
    data = b"".join(chunk.slice(start, stop) for chunk, start, stop in spans)
    return Chunk(spans[0].chunk.first_sequence + spans[0].start, types, ends, data)


def _merge(deltas: Sequence[Event]) -> Event:
    """Merge deltas of the same part into the last one, whose sequence, id and times stay."""
    *earlier, last = deltas
    if earlier:
        payload = str(last.WhichOneof("payload"))
        field = "arguments" if payload == "tool_arguments_delta" else "text"
        texts = [getattr(getattr(event, payload), field) for event in (*earlier, last)]
        setattr(getattr(last, payload), field, "".join(texts))
    return last


def _part(event: Event) -> tuple[object, ...]:
    """Return the key of deltas that may be merged: equal for those of the same part.

    A delta with attributes or a source has a key of its own, so that merging loses no information.
    """
    if event.attributes or event.HasField("source"):
        return (event.sequence,)
    delta = getattr(event, str(event.WhichOneof("payload")))
    names = ("message_id", "part_index", "tool_call_id", "tool_name")
    return (event.step_id, event.trace.SerializeToString(), *(getattr(delta, name, None) for name in names))


def _spans(chunks: Sequence[Chunk], after: int, limit: int) -> list[Span]:
    """Return the spans of consecutive chunks after a sequence, up to `limit` and a frame's size."""
    spans: list[Span] = []
    room = MAX_FRAME_BYTES
    for chunk in chunks:
        start = after + 1 - chunk.first_sequence
        if after >= limit or room <= 0 or not 0 <= start < len(chunk.types):
            break
        stop = min(chunk.events_within(start, room), limit + 1 - chunk.first_sequence)
        if spans and chunk.start(stop) - chunk.start(start) > room:
            break
        spans.append(Span(chunk, start, stop))
        room -= chunk.start(stop) - chunk.start(start)
        after = chunk.first_sequence + stop - 1
        if stop < len(chunk.types):
            break
    return spans
