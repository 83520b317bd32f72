"""What happened to one run, as its producer and its reader saw it from outside the server."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as it was read: where it stood in the log, and what it said."""

    sequence: int
    said: str


@dataclass(slots=True)
class History:
    """`invoked` is all that was ever sent; `acknowledged` has the promised sequence of what was said."""

    invoked: set[str] = field(default_factory=set)
    acknowledged: dict[str, int] = field(default_factory=dict)
    streamed: list[Seen] = field(default_factory=list)
    first_after_token: list[tuple[int, int]] = field(default_factory=list)
    faults: int = 0
