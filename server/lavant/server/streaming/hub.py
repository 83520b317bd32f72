"""Live delivery: one tail per run, shared by all its readers."""

from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

from lavant.server.model import RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import Engine, Notice, Watch
from lavant.server.streaming.wakes import WakeUps
from lavant.server.turns import Origin

_SHARED_FRAMES = 8  # at one head; readers at more positions than that encode their own
_CHUNK_OVERHEAD = 512  # bytes of a chunk's objects, counted against the tail's memory


class SharedFrame(NamedTuple):
    """Frame of the next events after a position, for all readers there. `data` is empty if the filter leaves none.

    `sequence` is the position after it; `committed_at` the commit of its first event in monotonic time, if known.
    """

    data: bytes
    sequence: int
    shown_count: int
    committed_at: float | None


class Tail:
    """The newest events of one run, in memory, and the run's state.

    All readers share the same bytes, and are woken by a callback. `last_sequence` never runs ahead of what is durable.
    `created_ns` is when the run was created; 0: unknown. The tail of a run ends with it: a later run with the same ID
    has a tail of its own.
    """

    def __init__(self, max_bytes: int, wake: Callable[[Callable[[], None]], None] = lambda reader: reader()) -> None:
        """Keep at most `max_bytes` of events, and the newest batch in any case; `wake` wakes a reader."""
        self.last_sequence = 0
        self.sealed = False
        self.deleted = False
        self.producer_seen_ns = 0
        self.created_ns = 0
        self._max_bytes = max_bytes
        self._wake_reader = wake
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._frames: dict[Hashable, SharedFrame] = {}
        self.readers: set[Callable[[], None]] = set()

    def observe(self, notice: Notice) -> None:
        """Apply a change of the run, and wake the readers."""
        if self._is_of(notice):
            self._apply(notice)
            if notice.chunk is not None:
                self._remember(notice.chunk)
        else:
            self.deleted = True
        self._wake()

    def learn(self, snapshot: Notice) -> bool:
        """Apply a snapshot of the run that a reader has read, and wake the readers if it is newer than the tail.

        Return whether it is of the tail's run.
        """
        before = (self.last_sequence, self.sealed)
        if is_same := self._is_of(snapshot):
            self._apply(snapshot)
            if (self.last_sequence, self.sealed) != before:
                self._wake()
        return is_same

    def after(self, sequence: int) -> list[Chunk] | None:
        """Return the chunks from the one that holds `sequence` + 1 on, or None if that is not in memory."""
        found: list[Chunk] = []
        for chunk in reversed(self._chunks):
            if chunk.last_sequence <= sequence:
                break
            found.append(chunk)
        if not found or found[-1].first_sequence > sequence + 1:
            return None
        found.reverse()
        return found

    def shared_frame(self, key: Hashable) -> SharedFrame | None:
        """Return a frame that a reader has kept since the last change."""
        return self._frames.get(key)

    def keep(self, key: Hashable, frame: SharedFrame) -> None:
        """Keep a frame for other readers at the same position, until the run changes."""
        if len(self.readers) > 1 and len(self._frames) < _SHARED_FRAMES:
            self._frames[key] = frame

    def _is_of(self, notice: Notice) -> bool:
        return self.created_ns == 0 or notice.created_ns in (0, self.created_ns)

    def _apply(self, notice: Notice) -> None:
        self.created_ns = self.created_ns or notice.created_ns
        self.last_sequence = max(self.last_sequence, notice.last_sequence)
        self.sealed = self.sealed or notice.sealed
        self.deleted = self.deleted or notice.deleted
        self.producer_seen_ns = max(self.producer_seen_ns, notice.producer_seen_ns)

    def _wake(self) -> None:
        self._frames.clear()
        for reader in tuple(self.readers):
            self._wake_reader(reader)

    def _remember(self, chunk: Chunk) -> None:
        if self._chunks and self._chunks[-1].last_sequence + 1 != chunk.first_sequence:
            self._chunks.clear()
            self._size = 0
        self._chunks.append(chunk)
        self._size += len(chunk.data) + _CHUNK_OVERHEAD
        while self._size > self._max_bytes and len(self._chunks) > 1:
            self._size -= len(self._chunks.popleft().data) + _CHUNK_OVERHEAD


class Hub:
    """Keeps a tail for each run that has readers."""

    def __init__(self, engine: Engine, tail_bytes: int) -> None:
        self.wake_ups = WakeUps()
        self._engine = engine
        self._tail_bytes = tail_bytes
        self._tails: dict[RunKey, Tail] = {}
        self._watches: dict[Tail, Watch] = {}

    def __len__(self) -> int:
        """Return the number of runs that have readers."""
        return len(self._watches)

    def join(self, key: RunKey, wake: Callable[[], None]) -> Tail:
        """Read a run's tail; `wake` is called after each change, until `leave`.

        No change is missed from here on; earlier events are read from the engine.
        """
        tail = self._tails.get(key)
        if tail is None or tail.deleted:  # a run created since under a deleted one's id is another run
            wake_up = partial(self.wake_ups.wake, Origin(key.tenant, key.run_id))
            tail = self._tails[key] = Tail(self._tail_bytes, wake_up)
            self._watches[tail] = self._engine.watch(key, tail.observe)
        tail.readers.add(wake)
        return tail

    def leave(self, key: RunKey, tail: Tail, wake: Callable[[], None]) -> None:
        """Stop reading a run's tail. May be called again."""
        tail.readers.discard(wake)
        if not tail.readers and tail in self._watches:
            self._watches.pop(tail).close()
            if self._tails.get(key) is tail:
                del self._tails[key]
