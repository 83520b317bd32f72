"""Records of a log, one per message: the state of the run after it, and the batches that it adds."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError
from pydantic_core import from_json

from lavant.server.errors import data_loss
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState, Producer
from lavant.server.store.chunk import Chunk
from lavant.server.store.restrictions import restricted_settings
from lavant.v1.run_pb2 import Run

_VERSION = 1
_HEAD = struct.Struct("<BBqqqqqHHHII")
# version, deleted, order, stamp, create_ns, first and last sequence, number of batches, sizes of names, run and log
_BATCH = struct.Struct("<qqHI")  # epoch, first producer sequence, sizes of producer_id and chunk
_CHECKSUM = struct.Struct("<I")


class Batch(NamedTuple):
    """Batch of a producer, as stored."""

    producer: Producer
    chunk: Chunk


class Stamps(NamedTuple):
    """Times at which a run was created and last changed, which order runs in lists.

    Nanoseconds since 1970, higher than every stamp that the replica had seen before.
    """

    order: int
    stamp: int


class Record:
    """Message of a log, decoded lazily.

    `first_sequence` is that of its first event, or of the next event if it has none. `sequence` is its position in
    the stream. `deleted`: whether the run is deleted; of such a one the record holds the settings only.
    """

    __slots__ = (
        "_batches_at", "_count", "_data", "_log_at", "_run_at",
        "create_ns", "deleted", "first_sequence", "key", "last_sequence", "sequence", "stamps",
    )  # fmt: skip

    def __init__(self, sequence: int, data: bytes) -> None:
        """Decode the head of a record. Raises DATA_LOSS if a single bit differs from what was written."""
        try:
            self._take_apart(data)
        except (struct.error, ValueError):
            raise data_loss("a stored record of a run is damaged") from None
        self.sequence = sequence

    @property
    def log(self) -> LogState:
        """Return the state of the run's log after this record."""
        try:
            run = Run.FromString(self._data[self._run_at : self._log_at])
            return LogState.decode(run, self._data[self._log_at : self._batches_at])
        except (TypeError, ValueError, AttributeError, DecodeError):
            raise data_loss("a stored run cannot be read") from None

    @property
    def run(self) -> Run:
        """Return the run after this record."""
        return Run.FromString(self._data[self._run_at : self._log_at])

    @property
    def stored_bytes(self) -> int:
        """Return the bytes of the run's events after this record."""
        if self.deleted:
            return 0
        try:
            return int(from_json(self._data[self._log_at : self._batches_at]).get("bytes", 0))
        except (TypeError, ValueError, AttributeError):
            raise data_loss("a stored run cannot be read") from None

    @property
    def batches(self) -> list[Batch]:
        """Return the batches that this record adds. Raises DATA_LOSS."""
        found = []
        at = self._batches_at
        for _ in range(self._count):
            epoch, first, name_size, chunk_size = _BATCH.unpack_from(self._data, at)
            name_at = at + _BATCH.size
            chunk_at = name_at + name_size
            at = chunk_at + chunk_size
            producer = Producer(self._data[name_at:chunk_at].decode(), epoch, first)
            found.append(Batch(producer, Chunk.decode(self._data[chunk_at:at])))
        return found

    def _take_apart(self, data: bytes) -> None:
        body = len(data) - _CHECKSUM.size
        if body < _HEAD.size or _CHECKSUM.unpack_from(data, body)[0] != google_crc32c.value(data[:body]):
            raise ValueError("checksum")
        (
            version, self.deleted, order, stamp, self.create_ns, self.first_sequence, self.last_sequence,
            self._count, tenant_size, id_size, run_size, log_size,
        ) = _HEAD.unpack_from(data)  # fmt: skip
        if version != _VERSION:
            raise ValueError("version")
        id_at = _HEAD.size + tenant_size
        self._run_at = id_at + id_size
        self._log_at = self._run_at + run_size
        self._batches_at = self._log_at + log_size
        self.key = RunKey(data[_HEAD.size : id_at].decode(), data[id_at : self._run_at].decode())
        self.stamps = Stamps(order, stamp)
        self._data = data


def encode(key: RunKey, stamps: Stamps, log: LogState, batches: Sequence[Batch]) -> bytes:
    """Encode the current state of a run, and the batches that led to it."""
    run, state, last = log.run.SerializeToString(), log.encode(), log.run.last_sequence
    log.encoded_bytes = len(run) + len(state)
    first = batches[0].chunk.first_sequence if batches else last + 1
    pieces = [run, state]
    for producer, chunk in batches:
        name, events = producer.producer_id.encode(), chunk.encode()
        pieces += (_BATCH.pack(producer.epoch, producer.first_sequence, len(name), len(events)), name, events)
    created = log.run.create_time.ToNanoseconds()
    return _sealed(key, (0, *stamps, created, first, last, len(batches)), (len(run), len(state)), pieces)


def encode_deletion(key: RunKey, stamps: Stamps, run: Run) -> bytes:
    """Encode the deletion of a run, with the settings that decide who is notified of it."""
    settings = restricted_settings(key.run_id, run).SerializeToString()
    return _sealed(key, (1, *stamps, 0, 0, 0, 0), (len(settings), 0), (settings,))


def _sealed(key: RunKey, numbers: Sequence[int], sizes: Sequence[int], pieces: Sequence[bytes]) -> bytes:
    names = [name.encode() for name in key]
    body = b"".join((_HEAD.pack(_VERSION, *numbers, *map(len, names), *sizes), *names, *pieces))
    return body + _CHECKSUM.pack(google_crc32c.value(body))
