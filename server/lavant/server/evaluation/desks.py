"""The rules that are at work in this process, each once."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from lavant.server.clock import Clock
from lavant.server.evaluation.counter import Counter
from lavant.server.evaluation.desk import Desk
from lavant.server.evaluation.drawing import ScoredRuns
from lavant.server.evaluation.rulebook import Rulebook
from lavant.server.measures import ScoreMeasures
from lavant.server.model import RunKey
from lavant.server.store.port import Engine

_IDLE = 100  # ledgers that are kept though nobody uses them


class Desks:
    """Gives all who use a rule the same desk and the same counter; the last used ones stay."""

    def __init__(self, engine: Engine, clock: Clock, measures: ScoreMeasures | None = None) -> None:
        self.rulebook = Rulebook(engine, clock)
        self._engine = engine
        self._clock = clock
        self._measures = measures
        self.scored_runs: ScoredRuns | None = None  # where scores are kept
        self._counters: OrderedDict[RunKey, Counter] = OrderedDict()
        self._users: dict[RunKey, int] = {}

    @contextmanager
    def at(self, rule: RunKey) -> Iterator[Counter]:
        """Use a rule's counter for the length of the block."""
        counter = self._counters.get(rule)
        if counter is None:
            desk = Desk(rule, self._engine, self._clock, self.rulebook, self._measures)
            counter = self._counters[rule] = Counter(desk, self._engine, self._clock, self.scored_runs)
        self._counters.move_to_end(rule)
        self._users[rule] = self._users.get(rule, 0) + 1
        try:
            yield counter
        finally:
            self._users[rule] -= 1
            if not self._users[rule]:
                del self._users[rule]
                self._drop_idle()

    @property
    def workers(self) -> int:
        """How many workers this server serves."""
        return sum(counter.workers for counter in self._counters.values())

    async def close(self) -> None:
        """Wait until nothing is under way."""
        for counter in self._counters.values():
            await counter.desk.idle()

    def _drop_idle(self) -> None:
        idle = [rule for rule in self._counters if rule not in self._users]
        for rule in idle[: max(0, len(idle) - _IDLE)]:
            del self._counters[rule]
