"""Cache of logs' states, bounded in number and in memory."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from lavant.server.model import RunKey

CAPACITY = 10_000  # logs
MAX_WEIGHT = 128 << 20  # bytes of memory, about
_LOOKED_AT = 16  # of the oldest logs, when one is to be evicted
_EntryT = TypeVar("_EntryT")


class LogCache(Generic[_EntryT]):
    """The most recently used logs.

    A log stays while `is_idle` returns False for it, as it knows what is not stored yet; so does the latest one.
    """

    def __init__(
        self, is_idle: Callable[[_EntryT], bool], *, capacity: int = CAPACITY, max_weight: int = MAX_WEIGHT
    ) -> None:
        self._is_idle = is_idle
        self._capacity = capacity
        self._max_weight = max_weight
        self._entries: OrderedDict[RunKey, _EntryT] = OrderedDict()
        self._weights: dict[RunKey, int] = {}
        self.weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: RunKey) -> bool:
        return key in self._entries

    def get(self, key: RunKey) -> _EntryT | None:
        """Return a log, which is now the latest one; None: it is not in the cache."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def peek(self, key: RunKey) -> _EntryT | None:
        """Return a log without counting that as a use; None: it is not in the cache."""
        return self._entries.get(key)

    def add(self, key: RunKey, entry: _EntryT, weight: int) -> None:
        """Add a log as the latest one, with about the bytes of its state."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._set_weight(key, weight)

    def weigh(self, key: RunKey, entry: _EntryT, weight: int) -> None:
        """Note that the state of a log has changed its size."""
        if self._entries.get(key) is entry:
            self._set_weight(key, weight)

    def remove(self, key: RunKey, entry: _EntryT) -> None:
        """Evict a log, unless the cache holds another one of its run."""
        if self._entries.get(key) is entry:
            self._drop(key)

    def clear(self) -> None:
        """Evict all logs."""
        self._entries.clear()
        self._weights.clear()
        self.weight = 0

    def _set_weight(self, key: RunKey, weight: int) -> None:
        self.weight += weight - self._weights.get(key, 0)
        self._weights[key] = weight
        while len(self._entries) > self._capacity or self.weight > self._max_weight:
            oldest = islice(self._entries.items(), min(_LOOKED_AT, len(self._entries) - 1))
            idle = next((old for old, entry in oldest if self._is_idle(entry)), None)
            if idle is None:
                return
            self._drop(idle)

    def _drop(self, key: RunKey) -> None:
        del self._entries[key]
        self.weight -= self._weights.pop(key)
