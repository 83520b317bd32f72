"""What a stream shows of a log, however the log is cut into batches and spans."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavant.server.store.chunk import Chunk
from lavant.server.streaming.reader import ALL_TYPES, Selection, Span, type_mask
from lavant.v1.event_pb2 import Event, EventType
from lavant.v1.event_service_pb2 import DeltaMode, EventBatch
from support.conversation import conversation, texts, type_of, without_deltas

ALL, MERGED, NONE = DeltaMode.DELTA_MODE_ALL, DeltaMode.DELTA_MODE_MERGED, DeltaMode.DELTA_MODE_NONE
TEXT = EventType.EVENT_TYPE_TEXT_DELTA
LOG = conversation()
for _number, _event in enumerate(LOG, start=1):
    _event.sequence = _number
TYPES = sorted({type_of(event) for event in LOG})


def chunks(cuts: Sequence[int]) -> Iterator[Chunk]:
    """The log in batches that end behind these sequences."""
    for start, stop in pairwise(sorted({0, *cuts, len(LOG)})):
        events = LOG[start:stop]
        yield Chunk.of(start + 1, map(type_of, events), [event.SerializeToString() for event in events])


def cut(selection: Selection, spans: Sequence[Span]) -> list[Event]:
    return list(EventBatch.FromString(b"".join(selection.cut(spans))).events)


def spans_of(cuts: Sequence[int], first: int, last: int) -> list[Span]:
    """Spans of the events from one sequence to another."""
    spans = []
    for chunk in chunks(cuts):
        start, stop = max(first - chunk.first_sequence, 0), min(last + 1 - chunk.first_sequence, len(chunk.types))
        if start < stop:
            spans.append(Span(chunk, start, stop))
    return spans


@settings(max_examples=300, deadline=None)
@given(
    cuts=st.lists(st.integers(1, len(LOG) - 1), max_size=8),
    window=st.tuples(st.integers(1, len(LOG)), st.integers(1, len(LOG))),
    types=st.sets(st.sampled_from(TYPES), max_size=6),
    mode=st.sampled_from([ALL, MERGED, NONE]),
)
def test_a_window_of_the_log(
    cuts: list[int], window: tuple[int, int], types: set[int], mode: "DeltaMode.ValueType"
) -> None:
    first, last = min(window), max(window)
    mask = sum(1 << value for value in types)
    got = cut(Selection(mask, mode), spans_of(cuts, first, last))
    wanted = [event for event in LOG[first - 1 : last] if not types or type_of(event) in types]
    assert without_deltas(got) == without_deltas(wanted)
    if mode == ALL:
        assert got == wanted
    elif mode == NONE:
        assert texts(got) == {}
    else:
        assert texts(got) == texts(wanted)
        sequences = [event.sequence for event in got]
        assert sequences == sorted(set(sequences))
        assert sequences[-1:] == [event.sequence for event in wanted[-1:]]


@pytest.mark.parametrize("cuts", [[], [5, 9, 17], list(range(1, len(LOG)))])
def test_neighbours_of_one_part_are_merged(cuts: list[int]) -> None:
    got = cut(Selection(ALL_TYPES, MERGED), spans_of(cuts, 1, len(LOG)))
    merged = [event.text_delta.text for event in got if event.HasField("text_delta")]
    assert merged == ["Let me see", "One moment", ", ", "please.", "It ", "is ", "cold today."]
    arguments = [event.tool_arguments_delta for event in got if event.HasField("tool_arguments_delta")]
    assert [(delta.tool_call_id, delta.arguments) for delta in arguments] == [("c1", '{"city":"Oslo"}'), ("c2", "{}")]
    assert [event.sequence for event in got if event.HasField("reasoning_delta")] == [6]


def test_what_is_not_merged_is_passed_on_as_stored() -> None:
    (chunk,) = chunks([])
    (piece,) = Selection(ALL_TYPES, ALL).cut([Span(chunk, 0, len(chunk.types))])
    assert piece is chunk.data


def test_deltas_that_were_left_out_of_a_filter_are_not_shown() -> None:
    assert cut(Selection(type_mask([TEXT]), NONE), spans_of([], 1, len(LOG))) == []
    assert cut(Selection(ALL_TYPES, NONE), []) == []


def test_a_mask_has_each_type_once() -> None:
    assert type_mask([TEXT, TEXT]) == 1 << TEXT
    assert type_mask([]) == ALL_TYPES
