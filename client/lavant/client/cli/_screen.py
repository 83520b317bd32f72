"""What a tail is shown on."""

from dataclasses import dataclass, field
from typing import Protocol

from rich.text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line that stays: a mark, a text, and an aside such as a duration.

    `note` is a second line, cut where it does not fit; `body` is shown whole below, in the mark's style.
    A `heading` belongs to what follows it; one that is `apart` has a blank line above.
    """

    depth: int = 0
    mark: str
    style: str = ""
    text: Text = field(default_factory=Text)
    aside: str = ""
    note: str = ""
    body: str = ""
    heading: bool = False
    apart: bool = False


class Screen(Protocol):
    """Shows lines, and text that comes in pieces; all of it is neutral already."""

    @property
    def shows_what_runs(self) -> bool:
        """Whether what is at work is visible without a line of its own."""
        ...

    def line(self, line: Line) -> None:
        """Show a line; text that is being shown goes on below it."""
        ...

    def text(self, depth: int, text: str, style: str = "") -> None:
        """Show more of the text that is being shown, or begin one."""
        ...

    def end_text(self) -> None:
        """End the text that is being shown."""
        ...


class HiddenScreen:
    """Shows nothing."""

    shows_what_runs = True

    def line(self, line: Line) -> None:
        """Leave it."""

    def text(self, depth: int, text: str, style: str = "") -> None:
        """Leave it."""

    def end_text(self) -> None:
        """Nothing is being shown."""
