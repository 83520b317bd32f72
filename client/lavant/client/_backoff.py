"""How long to wait before trying again."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Exponential delays with full jitter, in seconds, from `initial` up to `maximum`.

    `uniform(low, high)` is where the randomness comes from. Call `reset` on progress, and only then.
    """

    initial: float = 0.1
    maximum: float = 5.0
    factor: float = 2.0
    uniform: Callable[[float, float], float] = random.uniform
    _ceiling: float = field(default=0.0, init=False)

    def next(self, at_least: float | None = None) -> float:
        """Return the next delay, at least what the server asked for."""
        self._ceiling = min(self.maximum, self._ceiling * self.factor or self.initial)
        delay = self.uniform(self._ceiling / 2, self._ceiling)
        return delay if at_least is None else at_least + delay

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._ceiling = 0.0
