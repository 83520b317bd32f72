"""A tail in a pipe or a file: plain text, each piece as it comes."""

from typing import TextIO

from lavant.client.cli._screen import Line

_INDENT = "  "


class PlainScreen:
    """Writes a tail without colours; flushed after each line and each piece of text."""

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
        """Write what ends a text's last line."""
        if self._is_speaking:
            self._write("" if self._at_line_start else "\n")
            self._is_speaking, self._at_line_start, self._heading, self._apart = False, True, False, True
            self._file.flush()

    def _write(self, text: str) -> None:
        self._file.write(text)
