"""The cache of logs' states: the least recently used go first, by number and by memory, if stored."""

from dataclasses import dataclass

from lavant.server.model import RunKey
from lavant.server.store.log_cache import LogCache


@dataclass(eq=False)
class Log:
    """A log that is idle, or has changes queued."""

    name: str
    is_idle: bool = True

    @property
    def key(self) -> RunKey:
        return RunKey("default", self.name)


def cache(**bounds: int) -> LogCache[Log]:
    return LogCache(lambda log: log.is_idle, **bounds)


def names(held: LogCache[Log], logs: list[Log]) -> str:
    return "".join(log.name for log in logs if held.peek(log.key) is log)


def test_the_least_recently_used_log_is_evicted_when_there_are_too_many() -> None:
    logs = [Log(name) for name in "abcd"]
    held = cache(capacity=3)
    for log in logs[:3]:
        held.add(log.key, log, 1)
    held.get(logs[0].key)
    held.add(logs[3].key, logs[3], 1)
    assert names(held, logs) == "acd"
    assert held.weight == 3


def test_logs_are_evicted_when_they_take_too_much_memory() -> None:
    logs = [Log(name) for name in "abcd"]
    held = cache(max_weight=100)
    for log in logs:
        held.add(log.key, log, 25)
    assert names(held, logs) == "abcd"
    held.weigh(logs[3].key, logs[3], 60)
    assert names(held, logs) == "cd"
    assert held.weight == 85
    held.weigh(logs[3].key, logs[3], 1_000)
    assert names(held, logs) == "d"


def test_a_log_with_changes_queued_is_kept() -> None:
    logs = [Log("a", is_idle=False), Log("b"), Log("c", is_idle=False)]
    held = cache(max_weight=10)
    for log in logs:
        held.add(log.key, log, 10)
    assert names(held, logs) == "ac"
    logs[0].is_idle = True
    held.weigh(logs[2].key, logs[2], 10)
    assert names(held, logs) == "c"


def test_only_the_log_itself_is_removed_or_weighed_not_one_that_took_its_place() -> None:
    earlier, later = Log("a"), Log("a")
    held = cache()
    held.add(earlier.key, earlier, 7)
    held.add(later.key, later, 5)
    held.weigh(earlier.key, earlier, 100)
    held.remove(earlier.key, earlier)
    assert (held.peek(later.key), held.weight, len(held)) == (later, 5, 1)
    held.remove(later.key, later)
    assert (held.peek(later.key), held.weight, len(held)) == (None, 0, 0)
