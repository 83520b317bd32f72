"""Who wants to hear of changes."""

import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

_Key = TypeVar("_Key", bound=Hashable)


class Watchers(Generic[_Key]):
    """Callbacks by key. One may be closed, or another added, while they are being called.

    Every callback is called once for each announcement, unless it is closed before its turn.
    """

    def __init__(self) -> None:
        self._watches: dict[_Key, list[_Watch[_Key]]] = {}

    def add(self, key: _Key, callback: Callable[..., None]) -> "_Watch[_Key]":
        """Call back at each announcement for a key, until closed."""
        watch = _Watch(self, key, callback)
        self._watches.setdefault(key, []).append(watch)
        return watch

    def announce(self, key: _Key, *news: object) -> None:
        """Call all who watch a key; one that raises is logged and does not keep others from hearing."""
        for watch in tuple(self._watches.get(key, ())):
            if watch.callback is not None:
                try:
                    watch.callback(*news)
                except Exception:
                    logger.exception("a watcher failed")

    def remove(self, watch: "_Watch[_Key]") -> None:
        """Call a watch no more."""
        watches = self._watches[watch.key]
        watches.remove(watch)
        if not watches:
            del self._watches[watch.key]


class _Watch(Generic[_Key]):
    __slots__ = ("_watchers", "callback", "key")

    def __init__(self, watchers: Watchers[_Key], key: _Key, callback: Callable[..., None]) -> None:
        self._watchers = watchers
        self.key = key
        self.callback: Callable[..., None] | None = callback

    def close(self) -> None:
        """Lose interest; harmless when repeated."""
        if self.callback is not None:
            self.callback = None
            self._watchers.remove(self)
