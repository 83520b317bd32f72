"""Live delivery: one tail per run, shared by all who read it."""

from collections import deque
from collections.abc import Callable

from lavant.server.model import RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import Engine, Notice, Watch

_CHUNK_OVERHEAD = 512  # bytes that a chunk costs beside its data, counted against the tail's memory


class Tail:
    """The newest events of one run, in memory, and how the run stands.

    All readers are handed the same bytes, and woken by a call. `last_sequence` never runs ahead of what is durable.
    """

    def __init__(self, max_bytes: int) -> None:
        self.last_sequence = 0
        self.sealed = False
        self.deleted = False
        self.producer_seen_ns = 0
        self._max_bytes = max_bytes
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self.readers: set[Callable[[], None]] = set()

    def observe(self, notice: Notice) -> None:
        """Take in a change of the run, and wake the readers."""
        self._take_in(notice)
        if notice.chunk is not None:
            self._remember(notice.chunk)
        self._wake()

    def learn(self, standing: Notice) -> None:
        """Take in how the run stands, and wake the readers if that is news: most newcomers bring none."""
        before = (self.last_sequence, self.sealed)
        self._take_in(standing)
        if (self.last_sequence, self.sealed) != before:
            self._wake()

    def after(self, sequence: int) -> list[Chunk] | None:
        """The chunks from the one that holds `sequence` + 1 on; None: they are not in memory."""
        found: list[Chunk] = []
        for chunk in reversed(self._chunks):
            if chunk.last_sequence <= sequence:
                break
            found.append(chunk)
        if not found or found[-1].first_sequence > sequence + 1:
            return None
        found.reverse()
        return found

    def _take_in(self, notice: Notice) -> None:
        self.last_sequence = max(self.last_sequence, notice.last_sequence)
        self.sealed = self.sealed or notice.sealed
        self.deleted = self.deleted or notice.deleted
        self.producer_seen_ns = max(self.producer_seen_ns, notice.producer_seen_ns)

    def _wake(self) -> None:
        for wake in tuple(self.readers):
            wake()

    def _remember(self, chunk: Chunk) -> None:
        if self._chunks and self._chunks[-1].last_sequence + 1 != chunk.first_sequence:
            self._chunks.clear()
            self._size = 0
        self._chunks.append(chunk)
        self._size += len(chunk.data) + _CHUNK_OVERHEAD
        while self._size > self._max_bytes and len(self._chunks) > 1:
            self._size -= len(self._chunks.popleft().data) + _CHUNK_OVERHEAD


class Hub:
    """Keeps a tail for every run that somebody reads, and none for the others."""

    def __init__(self, engine: Engine, tail_bytes: int) -> None:
        self._engine = engine
        self._tail_bytes = tail_bytes
        self._tails: dict[RunKey, Tail] = {}
        self._watches: dict[Tail, Watch] = {}

    def __len__(self) -> int:
        """How many runs somebody reads."""
        return len(self._watches)

    def join(self, key: RunKey, wake: Callable[[], None]) -> Tail:
        """Read a run's tail; `wake` is called after each change, until `leave`.

        From here on no change is missed; what came before is to be asked of the engine.
        """
        tail = self._tails.get(key)
        if tail is None or tail.deleted:  # a run created since under a deleted one's id is another run
            tail = self._tails[key] = Tail(self._tail_bytes)
            self._watches[tail] = self._engine.watch(key, tail.observe)
        tail.readers.add(wake)
        return tail

    def leave(self, key: RunKey, tail: Tail, wake: Callable[[], None]) -> None:
        """Stop reading a run's tail."""
        tail.readers.discard(wake)
        if not tail.readers:
            self._watches.pop(tail).close()
            if self._tails.get(key) is tail:
                del self._tails[key]
