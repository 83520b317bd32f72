"""Chunks of serialized events, as stored and sent: serialized once, and sent without being parsed."""

import struct
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from math import inf
from operator import add

import google_crc32c
import zstandard

from lavant.server.errors import data_loss

_EVENT_FIELD = b"\x0a"  # EventBatch.events: field 1, length-delimited
_HEADER = struct.Struct("<BqI")  # format, first sequence, number of events
_CHECKSUM = struct.Struct("<I")
_PLAIN, _COMPRESSED = 1, 2
_COMPRESSED_FROM = 1_024  # bytes; less costs more time than it saves in pages
_LEVEL = -1  # of zstd: 0.3 us an event of 100 bytes of text, for 0.48 of its size; level 3 needs 0.5 us for 0.39
PREFIX = _HEADER.size + 18  # bytes that show the decoded size: 18 are the longest header of a frame of zstd
_SHORT = 2_048  # bytes; framing of smaller events is precomputed


class Chunk:
    """Consecutive events of one run in the wire format of EventBatch.

    A repeated field concatenates, so the `data` of several chunks, or any sequence of whole events
    cut out at `ends`, is an EventBatch too.

    Shapes, for n events: `types` holds n bytes, each an EventType; `ends` holds n offsets into
    `data`, each one past the last byte of its event. `committed_at` is monotonic time, in seconds; None: unknown.
    """

    __slots__ = ("committed_at", "data", "ends", "first_sequence", "types")

    def __init__(self, first_sequence: int, types: bytes, ends: Sequence[int], data: bytes) -> None:
        self.first_sequence = first_sequence
        self.types = types
        self.ends = ends
        self.data = data
        self.committed_at: float | None = None

    @classmethod
    def of(cls, first_sequence: int, types: Iterable[int], events: Sequence[bytes]) -> "Chunk":
        """Frame serialized events; `types` has the EventType of each."""
        prefixes = [_PREFIXES[size] if (size := len(event)) < _SHORT else _prefix(size) for event in events]
        ends = array("I", accumulate(map(add, map(len, prefixes), map(len, events))))
        return cls(
            first_sequence, bytes(types), ends, b"".join(chain.from_iterable(zip(prefixes, events, strict=True)))
        )

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event."""
        return self.first_sequence + len(self.types) - 1

    def start(self, index: int) -> int:
        """Return the offset in `data` at which the event at an index begins."""
        return self.ends[index - 1] if index else 0

    def slice(self, start: int, stop: int) -> bytes | memoryview:
        """Return the framed events from index `start` to `stop`, exclusive, without copying them."""
        if start == 0 and stop == len(self.types):
            return self.data
        return memoryview(self.data)[self.start(start) : self.start(stop)]

    def events_within(self, index: int, size: int) -> int:
        """Return the index, exclusive, up to which events from `index` on fit in `size` bytes.

        At least one event is included, so that an event larger than the limit is still sent.
        """
        return max(index + 1, bisect_right(self.ends, self.start(index) + size, lo=index))

    def encode(self) -> bytes:
        """Encode as a self-contained blob that ends with its CRC32C."""
        ends = self.ends if isinstance(self.ends, array) else array("I", self.ends)
        content, form = b"".join((self.types, ends.tobytes(), self.data)), _PLAIN
        if len(content) >= _COMPRESSED_FROM and len(compressed := _zstd.compress(content)) < len(content):
            content, form = compressed, _COMPRESSED
        body = _HEADER.pack(form, self.first_sequence, len(self.types)) + content
        return body + _CHECKSUM.pack(google_crc32c.value(body))

    @classmethod
    def decode(cls, blob: bytes) -> "Chunk":
        """Decode the result of `encode`. Raises DATA_LOSS if a single bit differs."""
        body = blob[: -_CHECKSUM.size]
        if len(blob) < _HEADER.size + _CHECKSUM.size or blob[-_CHECKSUM.size :] != _CHECKSUM.pack(
            google_crc32c.value(body)
        ):
            raise data_loss("a stored batch of events fails its checksum")
        form, first_sequence, count = _HEADER.unpack_from(body)
        content = body[_HEADER.size :]
        if form == _COMPRESSED:
            content = _zstd.decompress(content)
        elif form != _PLAIN:
            raise data_loss(f"a stored batch of events has the unknown format {form}")
        ends_end = 5 * count
        ends = array("I")
        ends.frombytes(content[count:ends_end])
        return cls(first_sequence, content[:count], ends, content[ends_end:])


def decoded_size(prefix: bytes, size: int) -> float:
    """Return how many bytes a result of `Chunk.encode` decodes to, by its first PREFIX bytes and its size.

    Infinite for a damaged one, whose decoding raises DATA_LOSS.
    """
    if prefix[:1] != bytes((_COMPRESSED,)):
        return size
    try:
        return zstandard.frame_content_size(prefix[_HEADER.size :])
    except zstandard.ZstdError:
        return inf


class _Zstd(threading.local):
    """Compressor and decompressor of one thread: neither may be used by two at once."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()


def varint(value: int) -> bytes:
    """Encode an unsigned number as protobuf does."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _prefix(size: int) -> bytes:
    return _EVENT_FIELD + varint(size)


_PREFIXES = [_prefix(size) for size in range(_SHORT)]
