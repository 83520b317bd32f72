"""Registry of callbacks for changes, by key."""

import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

_Key = TypeVar("_Key", bound=Hashable)


class Watchers(Generic[_Key]):
    """Callbacks by key. Callbacks may be added and closed while they are being called.

    Every callback is called once per announcement, unless it is closed before its turn.
    """

    def __init__(self) -> None:
        self._watches: dict[_Key, list[CallbackWatch[_Key]]] = {}

    def add(self, key: _Key, callback: Callable[..., None], *, begun: bool = True) -> "CallbackWatch[_Key]":
        """Call back at each announcement for a key, until closed; unless `begun`, only after `begin`."""
        watch = CallbackWatch(self, key, callback, begun)
        self._watches.setdefault(key, []).append(watch)
        return watch

    def begin(self, watch: "CallbackWatch[_Key]", *news: object) -> None:
        """Call one watch, if there is news for it, and from now on at each announcement."""
        watch.begun = True
        if news:
            _call(watch, *news)

    def announce(self, key: _Key, *news: object) -> None:
        """Call all watches of a key; a failing callback is logged, and the others are still called."""
        for watch in tuple(self._watches.get(key, ())):
            if watch.begun:
                _call(watch, *news)

    def remove(self, watch: "CallbackWatch[_Key]") -> None:
        """Stop calling a watch."""
        watches = self._watches[watch.key]
        watches.remove(watch)
        if not watches:
            del self._watches[watch.key]


class CallbackWatch(Generic[_Key]):
    """Callback in `Watchers`, until closed."""

    __slots__ = ("_watchers", "begun", "callback", "key")

    def __init__(self, watchers: Watchers[_Key], key: _Key, callback: Callable[..., None], begun: bool) -> None:
        self._watchers = watchers
        self.key = key
        self.callback: Callable[..., None] | None = callback
        self.begun = begun

    def close(self) -> None:
        """Stop calling back. May be called repeatedly."""
        if self.callback is not None:
            self.callback = None
            self._watchers.remove(self)


class FeedWatchers:
    """Callbacks for changes in the feeds of tenants: in that of one, or in those of all."""

    def __init__(self) -> None:
        self._of_one: Watchers[str] = Watchers()
        self._of_all: Watchers[None] = Watchers()

    def add(self, tenant: str, callback: Callable[[], None]) -> "CallbackWatch[str]":
        """Call back at each change of a tenant's runs, until closed."""
        return self._of_one.add(tenant, callback)

    def add_to_all(self, callback: Callable[[str], None]) -> "CallbackWatch[None]":
        """Call back at each change of any tenant's runs, with the tenant, until closed."""
        return self._of_all.add(None, callback)

    def announce(self, tenant: str) -> None:
        """Call all watches of a tenant."""
        self._of_one.announce(tenant)
        self._of_all.announce(None, tenant)


def _call(watch: CallbackWatch[_Key], *news: object) -> None:
    if watch.callback is not None:
        try:
            watch.callback(*news)
        except Exception:
            logger.exception("a watch's callback failed")
