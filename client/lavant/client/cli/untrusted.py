"""Neutralisation of text that agents wrote: it may contain what controls a terminal, or is invisible."""

import json
import unicodedata
from collections.abc import Callable

_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Emoji that a joiner merges are shown side by side: terminals differ in how wide the merged one is.
_IN_TEXT = {
    "\n": "\n",
    "\t": "    ",
    "\x85": "\n",
    "\u2028": "\n",
    "\u2029": "\n",
    "\N{ZERO WIDTH NON-JOINER}": "\N{ZERO WIDTH NON-JOINER}",
    "\N{ZERO WIDTH JOINER}": "",
}


class _Table(dict[int, str]):
    """Table for str.translate, filled by a rule for each character that occurs."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self._rule(chr(code))
        return self[code]


def _shown(character: str) -> str:
    if character in _IN_TEXT:
        return _IN_TEXT[character]
    category = unicodedata.category(character)
    if category in _UNSAFE:
        return _REPLACEMENT
    return " " if category == "Zs" else character


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if unicodedata.category(character) in _UNSAFE else character


_SHOWN = _Table(_shown)
_ESCAPED = _Table(_escaped)


def neutral(text: str) -> str:
    """Return text with control characters, escapes and changes of direction as U+FFFD; lines stay lines."""
    if text.isascii() and text.isprintable():
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_SHOWN)


def neutral_line(text: str, limit: int = 1_000) -> str:
    """Return text as `neutral` does, on one line of at most `limit` characters."""
    # Most of the text may be blanks, but the work must have a bound.
    line = " ".join(neutral(text[: 4 * limit]).split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def neutral_json(text: str) -> str:
    """Return JSON text of one line with the same characters escaped, so that its value does not change."""
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPED)


def one_line(text: str) -> str:
    """Return text with its line breaks as spaces and its control characters as U+FFFD."""
    flat = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in flat)
