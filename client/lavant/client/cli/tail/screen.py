"""Screens that a tail is shown on; this one for pipes and files, another for terminals."""

from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.text import Text

_INDENT = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line that is complete: a mark, a text, and an aside such as a duration.

    `note` is a second line, cut if it does not fit; `body` is shown in full below, in the mark's style. A `heading`
    belongs to what follows it; a line that is `apart` has a blank line above.
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
    """Shows lines, and text that arrives in pieces; callers neutralise all of it."""

    @property
    def shows_what_runs(self) -> bool:
        """Whether running steps are visible without a line of their own."""
        ...

    def line(self, line: Line) -> None:
        """Show a line; open text continues below it."""
        ...

    def text(self, depth: int, text: str, style: str = "") -> None:
        """Show more of the open text, or open one."""
        ...

    def end_text(self) -> None:
        """End the open text."""
        ...


class HiddenScreen:
    """Screen that shows nothing."""

    shows_what_runs = True

    def line(self, line: Line) -> None:
        """Ignore a line."""

    def text(self, depth: int, text: str, style: str = "") -> None:
        """Ignore a line."""

    def end_text(self) -> None:
        """Do nothing."""


class PlainScreen:
    """Screen that writes to a file without colours, and flushes after each line and each piece of text."""

    shows_what_runs = False

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._is_speaking = False
        self._at_line_start = True
        self._heading = True
        self._apart = False

    def line(self, line: Line) -> None:
        """Write a line, its note and its body."""
        self.end_text()
        indent = _INDENT * line.depth
        first = f"{line.mark} {line.text.plain}".rstrip()
        self._write(f"\n{indent}" if self._apart or line.apart else indent)
        self._write(f"{first}  {line.aside}\n" if line.aside else f"{first}\n")
        for below in (f"└ {line.note}" if line.note else "", *line.body.splitlines()):
            self._write(f"{indent}{_INDENT}{below}\n" if below else "")
        self._apart, self._heading = False, line.heading
        self._file.flush()

    def text(self, depth: int, text: str, style: str = "") -> None:  # noqa: ARG002
        """Write more of a text."""
        if not self._is_speaking:
            text = text.lstrip("\n")
            if not text:
                return
            self._write("" if self._heading else "\n")
            self._is_speaking = True
        for piece in text.splitlines(keepends=True):
            self._write(_INDENT * depth if self._at_line_start and piece != "\n" else "")
            self._write(piece)
            self._at_line_start = piece.endswith("\n")
        self._file.flush()

    def end_text(self) -> None:
        """End the last line of the open text."""
        if self._is_speaking:
            self._write("" if self._at_line_start else "\n")
            self._is_speaking, self._at_line_start, self._heading, self._apart = False, True, False, True
            self._file.flush()

    def _write(self, text: str) -> None:
        self._file.write(text)
