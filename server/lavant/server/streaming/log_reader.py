"""A position in a run's log that moves forward: by the tail's memory if it can, by the engine if not."""

from collections.abc import Sequence

from lavant.server.errors import data_loss
from lavant.server.model import RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import Engine
from lavant.server.streaming.frames import MAX_FRAME_BYTES
from lavant.server.streaming.hub import Tail
from lavant.server.streaming.selection import Selection, Span


class LogReader:
    """Reads a run's events in order, a frame's worth at a time, each exactly once.

    `shown_count` events were in what was read last; the first one's commit was at `committed_at`, if that is known.
    """

    __slots__ = (
        "_created_ns", "_engine", "_key", "_selection", "_tail", "committed_at", "sequence", "shown_count",
    )  # fmt: skip

    def __init__(self, engine: Engine, key: RunKey, tail: Tail, selection: Selection) -> None:
        self.sequence = self.shown_count = 0
        self.committed_at: float | None = None
        self._created_ns: int | None = None
        self._engine = engine
        self._key = key
        self._tail = tail
        self._selection = selection

    def begin(self, sequence: int, created_ns: int) -> None:
        """Continue behind a sequence, in the run that was created at this time and in no other of its id."""
        self.sequence, self._created_ns = sequence, created_ns

    async def read(self, limit: int) -> list[bytes | memoryview]:
        """Move on by at most a frame, up to `limit`, and return what the selection shows of it.

        Raises DATA_LOSS rather than leave out an event.
        """
        chunks: Sequence[Chunk] | None = self._tail.after(self.sequence)
        if chunks is None:
            chunks = await self._engine.read(self._key, self.sequence, MAX_FRAME_BYTES, self._created_ns)
        spans = _spans(chunks, self.sequence, limit)
        if not spans:
            raise data_loss(f"events behind {self.sequence} of run {self._key.run_id} are missing")
        shown_before = self._selection.shown_count
        pieces = list(self._selection.cut(spans))
        self.shown_count = self._selection.shown_count - shown_before
        self.committed_at = spans[0].chunk.committed_at
        last = spans[-1]
        self.sequence = last.chunk.first_sequence + last.stop - 1
        return pieces


def _spans(chunks: Sequence[Chunk], after: int, limit: int) -> list[Span]:
    """What of consecutive chunks lies behind `after`, up to `limit` and a frame's size."""
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
