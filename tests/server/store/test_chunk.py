"""The codec of stored events."""

import random
from concurrent.futures import ThreadPoolExecutor
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavant.server.store.chunk import PREFIX, Chunk, decoded_size, varint
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


def test_large_content_is_compressed_unless_it_grows() -> None:
    similar = Chunk.of(1, [32] * 50, [b"It is cold in Oslo today." + bytes((number,)) for number in range(50)])
    noise = Chunk.of(1, [32], [random.Random(1).randbytes(5_000)])
    assert len(similar.encode()) < 0.4 * len(similar.data)
    assert len(noise.encode()) < len(noise.data) + 30
    for made in (similar, noise):
        assert Chunk.decode(made.encode()).data == made.data


@pytest.mark.parametrize("text", [b"short", b"x" * 1_200, b"x" * 3_000_000], ids=len)
def test_the_prefix_shows_the_decoded_size(text: bytes) -> None:
    blob = Chunk.of(1, [32], [text]).encode()
    assert 0 <= decoded_size(blob[:PREFIX], len(blob)) - len(text) < 40
    if len(text) > len(blob):
        assert decoded_size(blob[:13] + b"damaged", len(blob)) == inf


def test_chunks_are_encoded_in_several_threads_at_once() -> None:
    made = [Chunk.of(1, [32] * 100, [bytes((number,)) * 100] * 100) for number in range(50)]
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda one: Chunk.decode(one.encode()), made * 20))
    assert [one.data for one in again] == [one.data for one in made * 20]


@pytest.mark.parametrize("events", [_EVENTS, _EVENTS[:3]], ids=["compressed", "plain"])
def test_no_damage_goes_unnoticed(events: list[bytes]) -> None:
    blob = Chunk.of(7, [32] * len(events), events).encode()
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
