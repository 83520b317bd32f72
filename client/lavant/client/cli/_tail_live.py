"""What is at work at this moment. Times are in seconds since 1970."""

from dataclasses import dataclass, field

from rich.text import Text

from lavant.v1.run_pb2 import TokenUsage


@dataclass(frozen=True, slots=True)
class Activity:
    """Something that has begun and not ended."""

    title: Text
    depth: int
    began: float


@dataclass(frozen=True, slots=True)
class Bar:
    """How far something is."""

    label: str
    completed: int
    total: int

    @property
    def part(self) -> float:
        """How much of it is done, from 0 to 1."""
        return min(1.0, max(0, self.completed) / self.total) if self.total > 0 else 0.0

    @property
    def is_complete(self) -> bool:
        """Whether all of it is done."""
        return 0 < self.total <= self.completed

    def __str__(self) -> str:
        return f"{self.completed:,}/{self.total:,}  {self.part:.0%}" if self.total > 0 else f"{self.completed:,}"


@dataclass(slots=True)
class Live:
    """A run's activities and bars by their ids, and where the run stands."""

    activities: dict[str, Activity] = field(default_factory=dict)
    bars: dict[str, Bar] = field(default_factory=dict)
    state: str = ""
    began: float | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    iteration: int = 0
