"""Width of text in a terminal, and text cut or wrapped to a width."""

import re

from rich.cells import get_character_cell_size
from rich.text import Text

_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_JOINED_OR_NOT = frozenset(map(chr, (*_FLAG_LETTERS, *_SKIN_TONES)))
_WORDS = re.compile(r" *[^ ]+| +$")


def cells(text: str) -> int:
    """Return the most columns that a terminal may use: some show flags and skin tones apart, some as one."""
    return len(text) if text.isascii() else sum(map(_cells_alone, text))


def cut(text: Text, width: int) -> Text:
    """Return text on one line of at most so many columns, its end marked where it is left out."""
    text.no_wrap = True
    if cells(text.plain) <= width:
        return text
    short = text[: _fitting(text.plain, width - 1)]
    return short.append("…")


def wrap(paragraph: str, width: int) -> list[str]:
    """Break a paragraph between words, and words that are wider than a line; the last line may get more."""
    width = max(2, width)
    lines, line = [], ""
    for word in _WORDS.findall(paragraph):
        if line.strip() and cells(line + word.rstrip()) > width:
            lines.append(line)
            line, word = "", word.lstrip()
        line += word
        while line.strip() and (fitting := _fitting(line, width)) < len(line.rstrip()):
            lines.append(line[:fitting])
            line = line[fitting:]
    return [*lines, line]


def _fitting(text: str, width: int) -> int:
    """Return how many characters fit, at least one."""
    used = 0
    for count, character in enumerate(text):
        used += _cells_alone(character)
        if used > width:
            return max(1, count)
    return len(text)


def _cells_alone(character: str) -> int:
    if character in _JOINED_OR_NOT:
        return 2
    # What it follows may become as wide as an emoji.
    return 1 if character == "\N{VARIATION SELECTOR-16}" else get_character_cell_size(character)
