"""The codec of stored events."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavant.server.store.chunk import Chunk, varint
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from support.engines import refused
from support.events import a_run_of

_EVENTS = [event.SerializeToString() for event in a_run_of(50)]


def chunk() -> Chunk:
    return Chunk.of(7, [32] * len(_EVENTS), _EVENTS)


def test_a_chunk_is_an_event_batch() -> None:
    batch = EventBatch.FromString(chunk().data)
    assert batch.events == [Event.FromString(event) for event in _EVENTS]
    assert chunk().last_sequence == 56


@given(first=st.integers(0, 49), count=st.integers(0, 50))
def test_whole_events_cut_out_of_a_chunk_are_an_event_batch(first: int, count: int) -> None:
    whole = chunk()
    last = min(first + count, 50)
    batch = EventBatch.FromString(whole.data[whole.start(first) : whole.start(last)])
    assert [event.SerializeToString() for event in batch.events] == _EVENTS[first:last]


@given(st.integers(0, 49), st.integers(0, 10_000))
def test_events_that_fit_are_at_least_one(index: int, size: int) -> None:
    whole = chunk()
    end = whole.events_within(index, size)
    assert index < end <= 50
    assert end == index + 1 or whole.start(end) - whole.start(index) <= size
    assert end == 50 or whole.start(end + 1) - whole.start(index) > size


@given(
    st.integers(1, 2**62),
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=20),
)
def test_encoding_loses_nothing(first: int, events: list[tuple[int, bytes]]) -> None:
    made = Chunk.of(first, [event_type for event_type, _ in events], [event for _, event in events])
    again = Chunk.decode(made.encode())
    assert (again.first_sequence, again.types, list(again.ends), again.data) == (
        first,
        bytes(event_type for event_type, _ in events),
        list(made.ends),
        made.data,
    )


def test_no_damage_goes_unnoticed() -> None:
    blob = chunk().encode()
    chance = random.Random(1)
    for bit in (chance.randrange(len(blob) * 8) for _ in range(500)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with refused("DATA_LOSS"):
            Chunk.decode(bytes(damaged))


@pytest.mark.parametrize("length", [0, 3, 10, 16, 100])
def test_a_blob_cut_short_is_noticed(length: int) -> None:
    with refused("DATA_LOSS"):
        Chunk.decode(chunk().encode()[:length])


@given(st.integers(0, 2**64 - 1))
def test_varints_are_those_of_protobuf(value: int) -> None:
    decoded = 0
    for index, byte in enumerate(varint(value)):
        decoded |= (byte & 0x7F) << 7 * index
    assert decoded == value
    assert all(byte > 0x7F for byte in varint(value)[:-1])
    assert varint(value)[-1] <= 0x7F
