"""Events as they are stored and sent: serialized once, never parsed again on their way out."""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from operator import add

import google_crc32c

from lavant.server.errors import data_loss

_EVENT_FIELD = b"\x0a"  # EventBatch.events: field 1, length-delimited
_HEADER = struct.Struct("<BqI")  # format version, first sequence, number of events
_CHECKSUM = struct.Struct("<I")
_VERSION = 1
_SHORT = 2_048  # bytes; the framing of events below is looked up


class Chunk:
    """Consecutive events of one run in the wire format of EventBatch.

    A repeated field concatenates, so the `data` of several chunks, or any run of whole events
    cut out at `ends`, is an EventBatch again.

    Shapes, for n events: `types` holds n bytes, each an EventType; `ends` holds n offsets into
    `data`, each behind the last byte of its event. `committed_at` is monotonic time; None: not known.
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
        """Frame serialized events, given with their EventTypes."""
        prefixes = [_PREFIXES[size] if (size := len(event)) < _SHORT else _prefix(size) for event in events]
        ends = array("I", accumulate(map(add, map(len, prefixes), map(len, events))))
        return cls(
            first_sequence, bytes(types), ends, b"".join(chain.from_iterable(zip(prefixes, events, strict=True)))
        )

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event."""
        return self.first_sequence + len(self.types) - 1

    def start(self, index: int) -> int:
        """Where the event at an index begins in `data`."""
        return self.ends[index - 1] if index else 0

    def slice(self, start: int, stop: int) -> bytes | memoryview:
        """The framed events at indexes `start` to `stop`, exclusive, without copying them."""
        if start == 0 and stop == len(self.types):
            return self.data
        return memoryview(self.data)[self.start(start) : self.start(stop)]

    def events_within(self, index: int, size: int) -> int:
        """Tell up to which index, exclusive, events from `index` on fit in `size` bytes.

        At least one event is taken, so that one larger than the limit still gets through.
        """
        return max(index + 1, bisect_right(self.ends, self.start(index) + size, lo=index))

    def encode(self) -> bytes:
        """Turn into a self-contained blob that ends with its CRC32C."""
        ends = self.ends if isinstance(self.ends, array) else array("I", self.ends)
        header = _HEADER.pack(_VERSION, self.first_sequence, len(self.types))
        body = b"".join((header, self.types, ends.tobytes(), self.data))
        return body + _CHECKSUM.pack(google_crc32c.value(body))

    @classmethod
    def decode(cls, blob: bytes) -> "Chunk":
        """Read what `encode` wrote; raises DATA_LOSS if a single bit differs."""
        body = blob[: -_CHECKSUM.size]
        if len(blob) < _HEADER.size + _CHECKSUM.size or blob[-_CHECKSUM.size :] != _CHECKSUM.pack(
            google_crc32c.value(body)
        ):
            raise data_loss("a stored batch of events fails its checksum")
        version, first_sequence, count = _HEADER.unpack_from(body)
        if version != _VERSION:
            raise data_loss(f"a stored batch of events has the unknown format {version}")
        types_end = _HEADER.size + count
        ends_end = types_end + 4 * count
        ends = array("I")
        ends.frombytes(body[types_end:ends_end])
        return cls(first_sequence, body[_HEADER.size : types_end], ends, body[ends_end:])


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
