"""How far a rule is in the feed of changes, what it has left out, and how that is told."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import to_json

from lavant.v1.event_pb2 import Event, SamplesDrawn
from lavant.v1.rule_pb2 import BackfillMode


class Window(NamedTuple):
    """Times of creation, in nanoseconds since 1970, from the first up to the second; None: without an end."""

    after_ns: int | None
    before_ns: int | None

    def holds(self, create_ns: int) -> bool:
        """Tell whether it holds a time."""
        return (self.after_ns is None or create_ns >= self.after_ns) and (
            self.before_ns is None or create_ns < self.before_ns
        )


class Gap(NamedTuple):
    """A part of the feed of changes that the rule did not look at, but for some windows of it."""

    after: int
    until: int
    windows: tuple[Window, ...] = ()


class Look(NamedTuple):
    """A look back at the first `gaps` gaps; it is in gap `at`, behind `position`.

    With a `mode` it looks at runs that were scored, in the order of their IDs, and is behind `after`: as one gap.
    """

    window: Window
    gaps: int
    at: int = 0
    position: int = 0
    seen: int = 0
    drawn: int = 0
    mode: "BackfillMode.ValueType" = BackfillMode.BACKFILL_MODE_UNSPECIFIED
    after: str = ""

    @property
    def done(self) -> bool:
        """Whether all gaps were looked at."""
        return self.at >= self.gaps


def live_position(position: int) -> str:
    """SamplesDrawn.position_json of a look at what is new."""
    return to_json({"position": str(position)}).decode()


def look_position(position: int) -> str:
    """SamplesDrawn.position_json of a look back."""
    return to_json({"look": str(position)}).decode()


def again_position(after: str | None) -> str:
    """SamplesDrawn.position_json of a look at runs that were scored; None: at all of them."""
    return to_json({"again": after}).decode()


def drawn_event(run_ids: Sequence[str], seen: int, position_json: str) -> Event:
    """Finished runs were looked at."""
    return Event(samples_drawn=SamplesDrawn(run_ids=run_ids, runs_seen=seen, position_json=position_json))
